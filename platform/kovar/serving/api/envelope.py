"""What surrounds every request: its id, the version's name, and no exception that gets out."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kovar.errors import RequestError
from kovar.serving.api.reply import refusal_reply
from kovar.serving.exchange import exchange_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from kovar.serving.served_model import ModelTable

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER: Final = "x-kovar-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
ID_HEADERS: Final = (REQUEST_ID_HEADER.encode(), b"x-request-id")
_MODEL_HEADER: Final = b"x-kovar-model"


class Envelope:
    """Names the version and the request in every response, and lets no exception out.

    An exception that leaves the application is logged with its message by the server, and the
    message may quote the user's text. A `RequestError` of the application within, or of a guard
    around it, becomes its refusal.

    Args:
        app: what answers.
        models: the version that a request came to is named where its answer names none itself;
            the default one where it came to none.
    """

    def __init__(self, app: ASGIApp, models: ModelTable) -> None:
        self._app = app
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection; see https://asgi.readthedocs.io/en/latest/specs/."""
        if scope["type"] != "http":
            await _no_http(scope, receive, send)
            return
        exchange = exchange_of(scope)
        exchange.request_id = request_id = request_id_of(
            {
                str(key, "latin-1"): str(value, "latin-1")
                for key, value in scope["headers"]
                if key in ID_HEADERS
            }
        )
        name = (REQUEST_ID_HEADER.encode(), request_id.encode())
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                exchange.status = message["status"]
                headers = [*message["headers"], name]
                if all(header[0] != _MODEL_HEADER for header in headers):
                    found = self._models.find(exchange.model or None, exchange.version or None)
                    headers += found.served.raw_headers
                message["headers"] = headers
            elif message["type"] == "http.response.body":
                exchange.sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception as problem:
            error = problem if isinstance(problem, RequestError) else _failed(problem, request_id)
            exchange.code = error.code
            if not started:
                await refusal_reply(error).send(send_named)


async def _no_http(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the server's start and end, and refuse WebSockets."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
        return
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def request_id_of(headers: Mapping[str, str]) -> str:
    """Keep the caller's id where it is harmless in a header and a log.

    Args:
        headers: with names in small letters.
    """
    given = headers.get(REQUEST_ID_HEADER) or headers.get("x-request-id") or ""
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _failed(problem: Exception, request_id: str) -> RequestError:
    """Log an exception by its kind and line; its message stays out."""
    logger.error("request %s failed: %s", request_id, place_of(problem))
    return RequestError("the server failed", status=500, code="internal")


def place_of(problem: BaseException) -> str:
    """Name an exception by its kind and line."""
    last = problem.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last else "unknown"
    return f"{type(problem).__name__} at {where}"
