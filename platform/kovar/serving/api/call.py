"""One HTTP request on its way to what answers it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kovar.errors import RequestError
from kovar.serving.body_room import BodyRoom
from kovar.serving.reading import ReadT, read_content
from kovar.serving.spec import RequestLimits

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from kovar.serving.exchange import Exchange

TIMEOUT_HEADER: Final = b"x-request-timeout-seconds"


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        scope: the ASGI connection.
        receive: gives the body's pieces.
        params: parts of the path: `model`, `version`.
        exchange: what is known of the request, for logs and metrics.
        limits: what is refused.
        deadline: moment on `time.monotonic` by which the answer is wanted.
        room: memory for the body.
    """

    scope: Scope
    receive: Receive
    params: Mapping[str, str]
    exchange: Exchange
    limits: RequestLimits
    deadline: float
    room: BodyRoom

    def header(self, name: bytes) -> str | None:
        """Return a header by its name in small letters."""
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return None

    def hurried(self) -> Call:
        """Return the call with the deadline that the client names, if that is earlier.

        Serve's proxy gives up at the moment that this header names; a text that still waits then
        need not run.

        Raises:
            RequestError: 400 the header is no number of seconds above 0.
        """
        written = self.header(TIMEOUT_HEADER)
        if written is None:
            return self
        try:
            seconds = float(written)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise RequestError(
                "x-request-timeout-seconds must be above 0", status=400, code="invalid_header"
            )
        return replace(self, deadline=min(self.deadline, time.monotonic() + seconds))

    async def read(self, read: Callable[[bytes], ReadT]) -> ReadT:
        """Return what the body means; a large one is read beside the event loop.

        Args:
            read: reads the body; may raise `RequestError`.

        Raises:
            RequestError: as `body`; 504 there was no time left; or what `read` raises.
        """
        return await read_content(await self.body(), read, deadline=self.deadline)

    async def body(self) -> bytes:
        """Read a body that may be too large, too slow, packed or cut off.

        Raises:
            RequestError: 400 it was cut off; 408 too slow; 413 too large; 415 packed; 429 there is
                no room for it.
        """
        declared = self.header(b"content-length") or ""
        if declared.isdecimal() and int(declared) > self.limits.max_body_bytes:
            raise self._too_large()
        if (self.header(b"content-encoding") or "identity") != "identity":
            raise RequestError(
                "the body is packed, send it as it is", status=415, code="encoding_not_supported"
            )
        latest = time.monotonic() + self.limits.body_timeout_s
        allowed = f"{self.limits.body_timeout_s:g} s"
        if self.deadline < latest:
            latest, allowed = self.deadline, "the time that the request has"
        try:
            async with asyncio.timeout(latest - time.monotonic()):
                content = await self._whole_body()
        except TimeoutError:
            raise RequestError(
                f"the body did not arrive within {allowed}", status=408, code="body_timeout"
            ) from None
        self.exchange.received_bytes = len(content)
        return content

    async def _whole_body(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise RequestError("the client went away", status=400, code="body_cut_off")
            piece = message.get("body", b"")
            size += len(piece)
            if size > self.limits.max_body_bytes:
                raise self._too_large()
            self.room.take(self.exchange, len(piece))
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _too_large(self) -> RequestError:
        return RequestError(
            f"the body is larger than {self.limits.max_body_bytes} bytes",
            status=413,
            code="body_too_large",
        )
