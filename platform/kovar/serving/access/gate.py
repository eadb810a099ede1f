"""The decision whether a caller may ask: one for HTTP and gRPC, on whatever port it arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from kovar.errors import RequestError
from kovar.serving.access.key import ApiKey, Scope, digest_of, public_id
from kovar.serving.access.keyring import Keyring
from kovar.serving.access.rates import Allowance


def _now() -> datetime:
    return datetime.now(UTC)


class Gate:
    """Checks keys, scopes and limits.

    It stands in the replica, behind every port that leads there: Serve's proxies, HAProxy and the
    replica's own port. Rates and concurrency are those of one replica.

    Args:
        keyring: the keys; None lets everybody in.
        clock: seconds that only move forward, for the rates.
        now: wall clock, for the ends of keys.
    """

    def __init__(
        self,
        keyring: Keyring | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        self._now = now
        self._allowances: dict[str, Allowance] = {}

    @property
    def is_locked(self) -> bool:
        """Whether a key is needed at all."""
        return self._keyring is not None

    @contextmanager
    def admit(self, headers: Mapping[str, str], scope: Scope | None) -> Iterator[ApiKey | None]:
        """Let one request in for as long as the context is open.

        Args:
            headers: with names in lower case; `authorization: Bearer KEY` or `x-api-key: KEY`.
            scope: what the request needs; None for what is open to everybody.

        Yields:
            The caller's key; None where none is needed.

        Raises:
            RequestError: 401 no key, an unknown or an ended one; 403 a key without the scope;
                429 above the key's rate or concurrency; 503 the keys cannot be read.
        """
        if self._keyring is None or scope is None:
            yield None
            return
        key = self._identify(self._keyring, headers)
        if not key.allows(scope):
            raise RequestError(
                f"this key does not have the scope {scope}", status=403, code="scope_missing"
            )
        allowance = self._use(key)
        try:
            yield key
        finally:
            allowance.num_running -= 1

    def _identify(self, keyring: Keyring, headers: Mapping[str, str]) -> ApiKey:
        token = token_of(headers)
        if token is None:
            raise RequestError(
                "a key is needed: Authorization: Bearer KEY", status=401, code="key_missing"
            )
        name = public_id(token)
        key = keyring.find(name) if name else None
        if key is None:
            digest_of(token)  # as much work as for a key that is known
            raise _unknown()
        if not key.matches(token):
            raise _unknown()
        state = key.state(self._now())
        if state == "revoked":
            raise RequestError("this key was revoked", status=401, code="key_revoked")
        if state == "expired":
            raise RequestError("this key has expired", status=401, code="key_expired")
        return key

    def _use(self, key: ApiKey) -> Allowance:
        """Count one more running request of a key that may have one more."""
        now = self._clock()
        allowance = self._allowances.setdefault(key.id, Allowance(key.limits, now))
        allowance.follow(key.limits, now)
        if allowance.is_busy:
            raise RequestError(
                f"this key may run {key.limits.max_concurrent} requests at a time",
                status=429,
                code="key_busy",
            )
        wait_s = allowance.wait_s(now)
        if wait_s > 0:
            raise RequestError(
                f"this key may ask {key.limits.requests_per_s:g} times a second",
                status=429,
                code="key_rate",
                retry_after_s=wait_s,
            )
        allowance.num_running += 1
        return allowance


def token_of(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request carries; an address or a body is never looked at.

    A key in an address would end up in the logs of every proxy on the way.
    """
    given = headers.get("authorization")
    if given is None:
        return headers.get("x-api-key")
    scheme, _, token = given.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else given


def _unknown() -> RequestError:
    # One answer for a wrong id and a wrong secret: neither can be searched for alone.
    return RequestError("this key is not known here", status=401, code="key_unknown")
