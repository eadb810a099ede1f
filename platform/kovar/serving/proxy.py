"""What Kovar adds to Serve's HTTP servers: a second try when a replica dies with a request.

Serve sends a request again only if no replica has taken it. When the replica that runs it dies,
its proxy leaves the ASGI application without a response, and the client gets a bare status 500. A
prediction has no side effect, so it can run once more elsewhere.

A cluster's proxies pass the requests of all its applications, whoever wrote them, and nobody but an
application knows whether its requests may run twice. Kovar's say so by the headers of their answers
(`DECLARATION`); what a proxy has not seen to answer so, is never asked again.

`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=kovar.serving.proxy:middlewares` puts it in place; see
`kovar.serving.environment`.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("ray.serve")

DECLARATION: Final = b"x-kovar-digest"
"""Every answer of Kovar's applications has this header, refusals included."""

_MODEL: Final = r"/v2/models/[^/]+(?:/versions/[^/]+)?"
_ASKED: Final = rf"/v1/(?:predict|embeddings)|{_MODEL}/infer|/v2/repository/index"
_READ: Final = rf"/v1/models|/v2|/v2/health/(?:live|ready)|{_MODEL}(?:/ready)?|/docs|/openapi\.json"
REPEATABLE: Final = {
    "POST": re.compile(_ASKED),
    "GET": re.compile(_READ),
    "HEAD": re.compile(_READ),
}
"""Method → the paths, below an application's prefix, that have no side effect."""
_OF_SERVE: Final = "/-/"
"""Paths that a proxy answers itself: its health and the routes of the applications."""
# Where the prefix ends is known once Serve has routed a request; its body passes by before.
_ENDS: Final = ("/predict", "/embeddings", "/infer", "/index")
MAX_KEPT_BYTES: Final = 4 << 20
# Every request earns a tenth of a second try, so a replica that dies again and again adds a tenth
# to the load at most; the reserve is for all requests that one replica had taken.
EARNED: Final = 0.1
RESERVE: Final = 1000.0


def middlewares() -> list[Middleware]:
    """Return what Serve wraps around its HTTP servers, called by Serve in each of them."""
    import ray
    from starlette.middleware import Middleware

    from kovar.serving.slow_clients import time_out_headers

    time_out_headers()
    # A replica that listens itself, behind HAProxy, calls this too: it has nobody else to ask.
    is_proxy = "PROXY" in (ray.get_runtime_context().get_actor_name() or "")
    return [Middleware(SecondTry, budget=RetryBudget())] if is_proxy else []


class RetryBudget:
    """How many second tries may still be made: a share of the requests, and a reserve."""

    def __init__(self, *, earned: float = EARNED, reserve: float = RESERVE) -> None:
        self._earned, self._reserve = earned, reserve
        self._left = reserve

    def earn(self) -> None:
        """Note a request."""
        self._left = min(self._reserve, self._left + self._earned)

    def spend(self) -> bool:
        """Take one second try; return whether there was one."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class SecondTry:
    """Sends a prediction again, once, when its replica died before it answered.

    Args:
        app: Serve's proxy.
        budget: how often that may happen.
    """

    def __init__(self, app: ASGIApp, *, budget: RetryBudget) -> None:
        self._app = app
        self._budget = budget
        self._declared: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._budget.earn()
        routed = _own(scope)
        keeps = scope["method"] != "POST" or scope["path"].endswith(_ENDS)
        kept = _Kept(receive, keeps=keeps)
        reply = _Reply(send)
        await self._app(routed, kept.receive, reply.send)
        if reply.started:
            self._learn(routed, reply)
            return
        if kept.client_is_gone:
            return
        if kept.is_whole and self._is_repeatable(routed) and self._budget.spend():
            logger.warning("a replica died with a request: it is sent again")
            await self._app(_own(scope), kept.again(), reply.send)
        if not reply.started:
            await _refuse(send, "the replica that ran this request has died", code="replica_lost")

    def _learn(self, routed: Scope, reply: _Reply) -> None:
        """Note whether an application declares itself; Serve's own answers say nothing of it."""
        prefix = routed.get("root_path", "")
        if reply.declares:
            self._declared.add(prefix)
        elif reply.status < 400 and not routed["path"].startswith(_OF_SERVE):
            self._declared.discard(prefix)

    def _is_repeatable(self, routed: Scope) -> bool:
        prefix = routed.get("root_path", "")
        path = routed["path"].removeprefix(prefix)
        paths = REPEATABLE.get(routed["method"])
        return prefix in self._declared and paths is not None and bool(paths.fullmatch(path))


class _Kept:
    """Keeps the messages of a request's body, while they pass, for a second try."""

    def __init__(self, receive: Receive, *, keeps: bool) -> None:
        self._receive = receive
        self._keeps = keeps
        self._messages: list[Message] = []
        self._size = 0
        self.is_whole = False
        self.client_is_gone = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.client_is_gone = True
        elif self._keeps:
            self._size += len(message.get("body", b""))
            self._messages.append(message)
            self.is_whole = not message.get("more_body", False)
            if self._size > MAX_KEPT_BYTES:
                self._keeps = self.is_whole = False
                self._messages.clear()
        return message

    def again(self) -> Receive:
        """Return what gives the same messages once more, and then those that follow."""
        messages = iter(self._messages)

        async def receive() -> Message:
            for message in messages:
                return message
            return await self.receive()

        return receive


class _Reply:
    """Notices whether an answer has begun, and whose it is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.status = 0
        self.declares = False

    async def send(self, message: Message) -> None:
        if not self.started:
            self.started = True
            self.status = message.get("status", 0)
            self.declares = any(name == DECLARATION for name, _ in message.get("headers", ()))
        await self._send(message)


def _own(scope: Scope) -> Scope:
    """Return a copy for one try: Serve writes the application's prefix into it while it routes.

    A second try that began with that prefix would lose it twice, and find another application or
    none.
    """
    return {**scope, "headers": list(scope.get("headers", ()))}


async def _refuse(send: Send, message: str, *, code: str) -> None:
    body = to_json({"error": message, "code": code, "field": None})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
