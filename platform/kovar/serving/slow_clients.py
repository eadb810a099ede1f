"""Connections that never get to a request: their headers must arrive in time.

uvicorn, the HTTP server in Serve's proxies and in replicas that listen themselves, waits for the
rest of a header without end. A replica sees a request only once its header is complete, so the
deadline stands in the server; the one of the body is the replica's own (`limits.body_timeout_s`).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kovar.serving.door import DOOR

HEADER_TIMEOUT_S: Final = 10.0
MAX_HEADER_BYTES: Final = 64 << 10
"""Of the address and all header fields; uvicorn keeps whatever comes until the header ends."""


def time_out_headers() -> None:
    """Let the servers that uvicorn starts in this process from now on hold the deadline.

    Their protocol is the one setting of uvicorn that Serve leaves at its default.
    """
    HTTP_PROTOCOLS["auto"] = f"{__name__}:TimedProtocol"


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a deadline and a largest size for a request's header.

    The time runs from the connection's begin, and on a connection that is kept from the first byte
    of each further request; between requests uvicorn's own `timeout_keep_alive` holds. A connection
    whose header is too large is closed: nothing of it has reached an application yet. When a header
    is complete the door is asked, and it is told of requests that come and are answered.
    """

    header_timeout_s = HEADER_TIMEOUT_S
    max_header_bytes = MAX_HEADER_BYTES
    _header_timer: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _has_begun = False
    _turned_away = False
    _num_inside = 0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first header."""
        super().connection_made(transport)
        _send_at_once(transport)
        self._wait_for_header()

    def data_received(self, data: bytes) -> None:
        """Take in what has come, and hang up on a header that does not end.

        The piece in which a header begins is not counted: the end of another request, or many
        whole ones, may stand before it. A piece is what one read of the socket gives.
        """
        self._has_begun = False
        super().data_received(data)
        if self._header_timer is not None and not self._has_begun and not self._turned_away:
            self._header_bytes += len(data)
            if self._header_bytes > self.max_header_bytes:
                self.transport.abort()

    def on_message_begin(self) -> None:
        """Begin to wait for the header of a further request."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._has_begun, self._header_bytes = True, 0
        self._wait_for_header()

    def on_headers_complete(self) -> None:
        """Stop waiting, and ask at the door; who is turned away need not become a request."""
        self._stop_waiting()
        answer = self._answer_at_the_door()
        if answer is None:
            super().on_headers_complete()
            return
        self._turned_away = True
        self.transport.write(answer)
        self._wait_for_header()  # and for what is left of the body

    def on_body(self, body: bytes) -> None:
        """Drop the body of a request that was turned away."""
        if not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Count a request that has come; be ready for the next one after one turned away."""
        if not self._turned_away:
            super().on_message_complete()
            if self.cycle is not None and not self.cycle.response_complete:
                self._num_inside += 1
                DOOR.num_inside += 1
            return
        self._turned_away = False
        self._stop_waiting()
        super().on_response_complete()

    def on_response_complete(self) -> None:
        """Count a request that is answered."""
        if self._num_inside:
            self._num_inside -= 1
            DOOR.num_inside -= 1
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting; nobody waits for what is inside."""
        self._stop_waiting()
        DOOR.num_inside -= self._num_inside
        self._num_inside = 0
        super().connection_lost(exc)
        # uvicorn leaves this timer where a connection broke: it would keep all of it in memory.
        self._unset_keepalive_if_required()

    def _answer_at_the_door(self) -> bytes | None:
        """Return the answer to a plain request on a connection that is kept and has no other.

        A client that does not read its answers is left to the application, which waits for it.
        """
        is_alone = self.cycle is None or self.cycle.response_complete
        is_plain = self.parser.should_keep_alive() and not self.parser.should_upgrade()
        if not is_alone or not is_plain or self.flow.write_paused:
            return None
        return DOOR.turn_away(self.parser.get_method(), self.url, self.headers)

    def _wait_for_header(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


def _send_at_once(transport: Any) -> None:
    """Let the end of an answer not wait until its beginning is acknowledged, for up to 40 ms.

    asyncio sees to it only where the listening socket names its protocol.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
