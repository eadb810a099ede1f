"""Connections that never get to a request: their headers must arrive in time.

uvicorn, the HTTP server in Serve's proxies and in replicas that listen themselves, waits for the
rest of a header without end. A replica sees a request only once its header is complete, so the
deadline stands in the server; the one of the body is the replica's own (`limits.body_timeout_s`).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_TIMEOUT_S: Final = 10.0


def time_out_headers() -> None:
    """Let the servers that uvicorn starts in this process from now on hold the deadline.

    Their protocol is the one setting of uvicorn that Serve leaves at its default.
    """
    HTTP_PROTOCOLS["auto"] = f"{__name__}:TimedProtocol"


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a deadline for a request's header.

    The time runs from the connection's begin, and on a connection that is kept from the first byte
    of each further request; between requests uvicorn's own `timeout_keep_alive` holds.
    """

    header_timeout_s = HEADER_TIMEOUT_S
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first header."""
        super().connection_made(transport)
        self._wait_for_header()

    def on_message_begin(self) -> None:
        """Begin to wait for the header of a further request."""
        super().on_message_begin()
        self._wait_for_header()

    def on_headers_complete(self) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_header(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
