"""Answers of the HTTP application."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from kovar.errors import RequestError

if TYPE_CHECKING:
    from starlette.types import Send

    from kovar.inference import Timing

JSON_TYPE: Final = (b"content-type", b"application/json")
RETRY_AFTER_S: Final = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    Attributes:
        body: its content.
        status: HTTP status.
        headers: ASGI headers; its length is added on sending.
    """

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = (JSON_TYPE,)

    async def send(self, send: Send, *, without_body: bool = False) -> None:
        """Send it; `without_body` is for HEAD."""
        length = (b"content-length", str(len(self.body)).encode())
        start = {"type": "http.response.start", "status": self.status}
        await send(start | {"headers": [*self.headers, length]})
        await send({"type": "http.response.body", "body": b"" if without_body else self.body})


def json_reply(body: Any, *, status: int = 200) -> Reply:
    """Answer with JSON."""
    return Reply(to_json(body), status)


def refusal_reply(error: RequestError) -> Reply:
    """Answer a request that is refused; a text never stands in it."""
    body = {"error": error.message, "code": error.code, "field": error.field}
    if error.hint is not None:
        body["hint"] = error.hint
    headers = [JSON_TYPE]
    after = retry_after(error)
    if after is not None:
        headers.append(after)
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return Reply(to_json(body), error.status, tuple(headers))


def retry_after(error: RequestError) -> tuple[bytes, bytes] | None:
    """Return the header that says when to ask again; None where nobody knows."""
    after = error.retry_after_s or (RETRY_AFTER_S if error.status == 429 else None)
    return None if after is None else (b"retry-after", str(math.ceil(after)).encode())


def server_timing(timing: Timing) -> tuple[bytes, bytes]:
    """Return the header that says how long the parts took.

    Source: https://www.w3.org/TR/server-timing/
    """
    text = (
        f"queue;dur={1000 * timing.queue_s:.2f}, tokenize;dur={1000 * timing.tokenize_s:.2f}, "
        f"compute;dur={1000 * timing.compute_s:.2f}"
    )
    return (b"server-timing", text.encode())
