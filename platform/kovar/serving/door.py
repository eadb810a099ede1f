"""Turns requests away at a replica's own port while its queue is full, before they cost anything.

A request that is refused by the application has passed a dozen tasks of the event loop by then.
Where three times as many come as can be answered, those tasks take the core that answers need, and
a refusal waits for seconds behind the others. Here it costs the reading of a header.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from kovar.serving.api.endpoint import pattern_of
from kovar.serving.api.envelope import ID_HEADERS, REQUEST_ID_HEADER, request_id_of
from kovar.serving.api.reply import refusal_reply
from kovar.serving.exchange import Exchange

if TYPE_CHECKING:
    from kovar.errors import RequestError
    from kovar.serving.protocol import ServedVersion

Headers = Sequence[tuple[bytes, bytes]]

ASKING: Final = (b"/v1/predict", b"/v1/embeddings", b"/infer")
"""How the addresses end whose requests the queue is for."""


class Keeper:
    """Turns predictions away while they would be refused anyway.

    Their answers, log lines and metrics are those of the application; what only a body could tell
    is not in them, and nobody has asked for a key.

    Args:
        refusal: given how many requests are inside, why a further one would be refused; None
            where it would not.
        served: the version that the answers name.
        note: is told of each request that was turned away.
    """

    def __init__(
        self,
        refusal: Callable[[int], RequestError | None],
        served: ServedVersion,
        note: Callable[[Exchange], None],
    ) -> None:
        self._refusal = refusal
        self._headers = served.raw_headers
        self._note = note

    def turn_away(
        self, method: bytes, url: bytes, headers: Headers, *, num_inside: int
    ) -> bytes | None:
        """Return the whole answer to a request that must not come in."""
        path = url.partition(b"?")[0]
        if method != b"POST" or not path.endswith(ASKING):
            return None
        error = self._refusal(num_inside)
        if error is None:
            return None
        reply = refusal_reply(error)
        ids = {
            str(key, "latin-1"): str(value, "latin-1")
            for key, value in headers
            if key in ID_HEADERS
        }
        exchange = Exchange(
            request_id=request_id_of(ids),
            route=_route_of(path),
            method="POST",
            code=error.code,
            status=error.status,
            sent_bytes=len(reply.body),
        )
        self._note(exchange)
        own = (
            (REQUEST_ID_HEADER.encode(), exchange.request_id.encode()),
            (b"content-length", str(len(reply.body)).encode()),
        )
        named = (*reply.headers, *self._headers, *own)
        lines = [name + b": " + value + b"\r\n" for name, value in named]
        return b"".join((STATUS_LINE[error.status], *lines, b"\r\n", reply.body))


class Door:
    """The door of this process; open until a replica keeps it.

    Attributes:
        num_inside: requests that have come to their end and are not answered.
    """

    def __init__(self) -> None:
        self.num_inside = 0
        self._keeper: Keeper | None = None

    def keep(self, keeper: Keeper) -> None:
        """Let a keeper decide from now on."""
        self._keeper = keeper

    def leave(self, keeper: Keeper) -> None:
        """Leave the door open, where no other keeper has come meanwhile."""
        if self._keeper is keeper:
            self._keeper = None

    def turn_away(self, method: bytes, url: bytes, headers: Headers) -> bytes | None:
        """Return the answer to a request that must not come in; headers have small names."""
        if self._keeper is None:
            return None
        return self._keeper.turn_away(method, url, headers, num_inside=self.num_inside)


DOOR: Final = Door()
"""uvicorn makes its protocols itself, so they find the door here."""


def _route_of(path: bytes) -> str:
    """Return the pattern of an address below whatever prefix."""
    begin = max(path.rfind(b"/v1/"), path.find(b"/v2/models/"), 0)
    return pattern_of(path[begin:].decode("latin-1"))[0]
