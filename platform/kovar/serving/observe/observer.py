"""Watches requests from their arrival to their end; outside of the gate, so refusals are seen."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kovar.errors import RequestError
from kovar.serving.exchange import Exchange, exchange_of
from kovar.serving.observe.access_log import AccessLog
from kovar.serving.observe.capture import Capture
from kovar.serving.observe.meter import Meter
from kovar.serving.observe.tracing import annotate_span

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_GONE: Final = 499
"""Status in the log of a request whose client went away; no client sees it."""


class Observer:
    """Tells log, metrics, capture and span of every request that has ended.

    Args:
        log: the access log.
        meter: the metrics.
        capture: the sample of texts.
        version: model, version and digest that stand for requests that were refused before any
            model was found.
    """

    def __init__(
        self,
        *,
        log: AccessLog | None = None,
        meter: Meter | None = None,
        capture: Capture | None = None,
        version: tuple[str, str, str] = ("", "", ""),
    ) -> None:
        self._log = log
        self._meter = meter
        self._capture = capture
        self._version = version
        self.num_running = 0
        # Equal inputs have equal digests for as long as the replica lives; without the key, which
        # is nowhere else, nobody can find out a short text by trying all of them.
        self._digest_key = secrets.token_bytes(32)

    @property
    def digests_inputs(self) -> bool:
        """Whether anything is written that names the input's digest."""
        return self._log is not None

    def new_digest(self) -> hashlib.blake2b:
        """Return a digest to feed a request's body to."""
        return hashlib.blake2b(key=self._digest_key, digest_size=16)

    @contextmanager
    def watch(
        self, exchange: Exchange, digest: hashlib.blake2b | None = None
    ) -> Iterator[Exchange]:
        """Watch one request for as long as the context is open; its errors pass through.

        Args:
            exchange: what becomes known of the request.
            digest: of its body, when it has been read.
        """
        self.num_running += 1
        try:
            yield exchange
        except RequestError as refusal:
            exchange.code, exchange.status = refusal.code, refusal.status
            raise
        except asyncio.CancelledError:
            exchange.code, exchange.status = "client_gone", CLIENT_GONE
            raise
        except Exception:
            exchange.code, exchange.status = "internal", 500
            raise
        finally:
            self.num_running -= 1
            self._end(exchange, digest)

    def turned_away(self, exchange: Exchange) -> None:
        """Note a request that was refused before it began."""
        self._end(exchange, None)

    def close(self) -> None:
        """Write what waits."""
        if self._capture is not None:
            self._capture.close()
        if self._meter is not None:
            self._meter.close()
        if self._log is not None:
            self._log.close()

    def _end(self, exchange: Exchange, digest: hashlib.blake2b | None) -> None:
        seconds = time.monotonic() - exchange.arrived
        if not exchange.model:
            exchange.model, exchange.version, exchange.digest = self._version
        if exchange.code is None and exchange.status >= 400:
            exchange.code = f"http_{exchange.status}"
        if self._log is not None:
            has_body = digest is not None and exchange.received_bytes
            self._log.write(
                exchange,
                seconds=seconds,
                input_digest=digest.hexdigest() if digest is not None and has_body else None,
            )
        if self._meter is not None:
            self._meter.request(exchange, seconds)
        if self._capture is not None:
            self._capture.offer(exchange)
        annotate_span(exchange)


class ObserverMiddleware:
    """The observer around an ASGI application.

    Args:
        app: what is watched.
        observer: who is told.
    """

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = exchange_of(scope)
        if not self._observer.digests_inputs:
            with self._observer.watch(exchange):
                await self._app(scope, receive, send)
            return
        digest = self._observer.new_digest()

        async def receive_digested() -> Message:
            message = await receive()
            digest.update(message.get("body", b""))
            return message

        with self._observer.watch(exchange, digest):
            await self._app(scope, receive_digested, send)
