"""An API key: 256 random bits for the caller, their SHA-256 and the key's rights for the server."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Self, get_args

from pydantic import AwareDatetime, Field, model_validator

from kovar.config import Config

Scope = Literal["predict", "metadata", "admin"]
"""What a key allows: asking for predictions, reading about models, and everything."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
State = Literal["active", "expired", "revoked"]

# A fixed prefix lets scanners of source code and logs find a key that has leaked.
_TOKEN = re.compile(r"kovar_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class KeyLimits(Config):
    """How much one key may ask of one replica; nothing is limited where a field is absent."""

    requests_per_s: float | None = Field(default=None, gt=0, description="requests a second")
    burst: int | None = Field(
        default=None, ge=1, description="requests at once after a pause; a second's worth if absent"
    )
    max_concurrent: int | None = Field(default=None, ge=1, description="requests at one time")

    @model_validator(mode="after")
    def _a_burst_is_of_a_rate(self) -> Self:
        if self.burst is not None and self.requests_per_s is None:
            raise ValueError("burst needs requests_per_s: it says how fast the burst comes back")
        return self

    @property
    def capacity(self) -> float:
        """Requests that a pause saves up."""
        return float(self.burst or max(1.0, self.requests_per_s or 1.0))


class ApiKey(Config):
    """What the server keeps of a key; the key itself cannot be told from it."""

    id: str = Field(pattern=r"^[0-9a-f]{16}$", description="public name of the key")
    name: str = Field(min_length=1, max_length=100, description="whose key it is")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the whole key")
    scopes: tuple[Scope, ...] = Field(min_length=1, description="what it allows")
    created_at: AwareDatetime = Field(description="when it was made")
    expires_at: AwareDatetime | None = Field(default=None, description="when it ends, if it does")
    revoked_at: AwareDatetime | None = Field(default=None, description="when it was taken back")
    limits: KeyLimits = Field(default=KeyLimits(), description="how much it may ask")

    def allows(self, scope: Scope) -> bool:
        """Whether the key has a scope; `admin` holds the others."""
        return scope in self.scopes or "admin" in self.scopes

    def state(self, now: datetime) -> State:
        """Whether the key can be used at a moment."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def matches(self, token: str) -> bool:
        """Compare in a time that does not depend on where two digests differ."""
        return hmac.compare_digest(self.sha256, digest_of(token))


def issue(
    name: str,
    scopes: tuple[Scope, ...],
    *,
    expires_at: datetime | None = None,
    limits: KeyLimits | None = None,
    now: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key.

    Returns:
        What the server keeps, and the key itself, which nobody can show again.
    """
    public = secrets.token_hex(8)
    token = f"kovar_{public}_{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=public,
        name=name,
        sha256=digest_of(token),
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        created_at=now or datetime.now(UTC),
        expires_at=expires_at,
        limits=limits or KeyLimits(),
    )
    return key, token


def public_id(token: str) -> str | None:
    """Return the public id that a key names; None for what has not the form of a key."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def digest_of(token: str) -> str:
    """Digest a key; 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


_DURATION = re.compile(r"(\d+)\s*(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


def parse_duration(text: str) -> timedelta:
    """Read how long a key lives: `90d`, `12h`, `30min`, `0s`.

    Raises:
        ValueError: other text, or more than a hundred years.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError("a time such as 90d, 12h or 30min is needed")
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > 36_500 * 86_400:
        raise ValueError("at most a hundred years are allowed")
    return timedelta(seconds=seconds)
