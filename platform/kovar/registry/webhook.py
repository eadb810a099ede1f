"""Tell other services of moves of aliases: signed HTTP requests that never hold up a promotion.

Each request is a POST of JSON with these headers:

- `Kovar-Event`: `alias.moved`.
- `Kovar-Delivery`: `<model>/<alias>/<sequence>`; the same for every attempt, so a receiver can
  drop repetitions. Repeating a promotion that is in place already sends the event again.
- `Kovar-Signature`: `t=<Unix time>,v1=<hex>`: HMAC-SHA256 with the secret over
  `<Unix time>.<body>`. A receiver that refuses old times is safe from replays.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from kovar.errors import SettingsError
from kovar.registry.version import AliasMove
from kovar.settings import Settings

EVENT: Final = "alias.moved"
_RETRIED: Final = (408, 425, 429)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long a delivery is tried."""

    max_attempts: int = 5
    timeout_s: float = 5.0
    """For one attempt."""
    first_delay_s: float = 0.5
    """Doubled after each attempt; up to a quarter is added by chance."""
    drain_s: float = 15.0
    """How long `close` waits for the deliveries under way."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The outcome of telling one URL of one move."""

    url: str
    delivery: str
    attempts: int
    status: int | None
    """HTTP status of the last answer; None if there was none."""
    error: str | None
    """None if it was delivered."""


class AliasWebhook:
    """Call it with each move; deliveries happen in the background.

    Args:
        urls: who is told.
        secret: key of the signatures.
        retry: how often and how long.
    """

    def __init__(
        self, urls: tuple[str, ...], *, secret: str, retry: RetryPolicy | None = None
    ) -> None:
        self._urls = urls
        self._secret = secret.encode()
        self._retry = retry or RetryPolicy()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="webhook")
        self._lock = threading.Lock()
        self._pending: list[Future[Delivery]] = []
        self._closing = threading.Event()

    @classmethod
    def of(cls, settings: Settings) -> AliasWebhook | None:
        """Return what the settings ask for.

        Raises:
            SettingsError: a URL that is not http(s), or no secret.
        """
        for url in settings.webhook_urls:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise SettingsError(
                    "not a URL that can be told of a move",
                    field="webhook_urls",
                    got=url,
                    allowed="https://host/path",
                )
        if settings.webhook_urls and not settings.webhook_secret:
            raise SettingsError(
                "webhook URLs need a secret, which signs the requests",
                field="webhook_secret",
                hint="set KOVAR_WEBHOOK_SECRET to a long random text, and give it to the receiver",
            )
        if not settings.webhook_urls:
            return None
        return cls(settings.webhook_urls, secret=settings.webhook_secret or "")

    def __call__(self, move: AliasMove) -> None:
        """Begin to tell every URL; return at once, raise nothing."""
        body = json.dumps(body_of(move), sort_keys=True).encode()
        delivery = delivery_of(move)
        with self._lock:
            self._pending = [each for each in self._pending if not each.done()]
            for url in self._urls:
                self._pending.append(self._threads.submit(self._deliver, url, delivery, body))

    def close(self) -> list[Delivery]:
        """Wait a bounded time for the deliveries under way; return the latest that ended."""
        with self._lock:
            pending = list(self._pending)
        done, late = wait_for(pending, timeout=self._retry.drain_s)
        self._closing.set()
        if late:
            log.error("%d webhook deliveries were given up: too slow", len(late))
        self._threads.shutdown(wait=False, cancel_futures=True)
        return [future.result() for future in done]

    def _deliver(self, url: str, delivery: str, body: bytes) -> Delivery:
        status, error, attempt = None, None, 0
        for attempt in range(1, self._retry.max_attempts + 1):
            status, error = self._send(url, delivery, body)
            if error is None or (status and 400 <= status < 500 and status not in _RETRIED):
                break
            delay = self._retry.first_delay_s * 2 ** (attempt - 1) * random.uniform(1, 1.25)  # noqa: S311
            if attempt == self._retry.max_attempts or self._closing.wait(delay):
                break
        outcome = Delivery(url=url, delivery=delivery, attempts=attempt, status=status, error=error)
        if error:
            log.error(
                "webhook %s: %s not told after %d attempts: %s", url, delivery, attempt, error
            )
        else:
            log.info("webhook %s: %s told (attempt %d)", url, delivery, attempt)
        return outcome

    def _send(self, url: str, delivery: str, body: bytes) -> tuple[int | None, str | None]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "kovar",
            "Kovar-Event": EVENT,
            "Kovar-Delivery": delivery,
            "Kovar-Signature": signature_of(self._secret, body, at=int(time.time())),
        }
        request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310
        try:
            with _OPENER.open(request, timeout=self._retry.timeout_s) as answer:
                return answer.status, None
        except urllib.error.HTTPError as problem:
            problem.close()
            return problem.code, f"HTTP {problem.code}"
        except (
            Exception
        ) as problem:  # a broken receiver can cause anything; the caller must not see
            return None, str(getattr(problem, "reason", problem)) or type(problem).__name__


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, and go where no one configured it to go."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow none: the answer counts as it is."""


_OPENER: Final = urllib.request.build_opener(_NoRedirect)


def delivery_of(move: AliasMove) -> str:
    """Return the name of the event: one for each move."""
    return f"{move.model}/{move.alias}/{move.sequence}"


def body_of(move: AliasMove) -> dict[str, Any]:
    """Return what is told of a move, as plain JSON types."""
    return {
        "event": EVENT,
        "delivery": delivery_of(move),
        "model": move.model,
        "alias": move.alias,
        "sequence": move.sequence,
        "moved_at": move.moved_at.isoformat(),
        "moved_by": move.moved_by,
        "from": _end(move.from_number, move.from_digest),
        "to": _end(move.to_number, move.to_digest),
        "reason": move.reason,
        "forced": move.forced,
    }


def signature_of(secret: bytes, body: bytes, *, at: int) -> str:
    """Return the `Kovar-Signature` of a body."""
    mac = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


def verify_signature(
    header: str,
    body: bytes,
    *,
    secret: str,
    max_age_s: float = 300,
    clock: Callable[[], float] = time.time,
) -> bool:
    """Tell whether a request is genuine and recent; for receivers written in Python."""
    fields = dict(part.partition("=")[::2] for part in header.split(","))
    if not fields.get("t", "").isdecimal() or abs(clock() - int(fields["t"])) > max_age_s:
        return False
    expected = signature_of(secret.encode(), body, at=int(fields["t"]))
    return hmac.compare_digest(expected.encode(), header.encode())


def _end(number: int | None, digest: str | None) -> dict[str, Any] | None:
    return None if number is None else {"number": number, "digest": digest}
