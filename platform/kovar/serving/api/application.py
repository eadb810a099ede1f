"""The HTTP application of one replica; an ASGI application that knows nothing of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kovar.errors import RequestError
from kovar.serving.access.middleware import path_in
from kovar.serving.answering import Answering
from kovar.serving.api.call import Call
from kovar.serving.api.documentation import documentation_endpoints
from kovar.serving.api.embeddings import embeddings_endpoints
from kovar.serving.api.endpoint import Routes
from kovar.serving.api.envelope import Envelope
from kovar.serving.api.infer import infer_endpoints, metadata_endpoints
from kovar.serving.api.predict import predict_endpoint
from kovar.serving.api.reply import refusal_reply
from kovar.serving.api.repository import repository_endpoints
from kovar.serving.body_room import BodyRoom
from kovar.serving.exchange import exchange_of
from kovar.serving.served_model import Model, ModelTable
from kovar.serving.spec import RequestLimits

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

Middleware = Callable[["ASGIApp"], "ASGIApp"]


def create_api(
    models: Sequence[Model],
    *,
    limits: RequestLimits,
    middlewares: Sequence[Middleware] = (),
    keyed: bool = False,
    answering: Answering | None = None,
) -> ASGIApp:
    """Build the application: `/v1/predict`, `/v1/embeddings`, the Open Inference Protocol, `/docs`.

    Args:
        models: what answers; the first one where a request names none.
        limits: what is refused before any work.
        middlewares: guards around it, the outermost first. They run before a body is read and
            inside the envelope, which turns their `RequestError` into a refusal.
        keyed: whether one of them asks for an API key, for the documentation.
        answering: what answers the same models elsewhere too, as by gRPC: what bodies may take in
            memory is then one bound for all of them.
    """
    answering = answering or Answering(ModelTable(models), limits)
    endpoints = [
        predict_endpoint(answering),
        *embeddings_endpoints(answering),
        *infer_endpoints(answering),
        *metadata_endpoints(answering),
        *repository_endpoints(answering),
    ]
    served = [model.served for model in models]
    endpoints += documentation_endpoints(endpoints, served, keyed=keyed)
    app: ASGIApp = _Dispatch(Routes(endpoints), limits, answering.room)
    for middleware in reversed(middlewares):
        app = middleware(app)
    return Envelope(app, answering.models)


class _Dispatch:
    """Answers each request by the endpoint of its path.

    There is no framework between the socket and the endpoint: a replica's Python thread is shared
    with the tokenizer and the runtime, so each microsecond here is one of theirs.
    """

    def __init__(self, routes: Routes, limits: RequestLimits, room: BodyRoom) -> None:
        self._routes = routes
        self._limits = limits
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        deadline = time.monotonic() + self._limits.request_timeout_s
        try:
            # The path that the gate has judged.
            endpoint, params = self._routes.find(scope["method"], path_in(scope))
            exchange.route = endpoint.path
            call = Call(scope, receive, params, exchange, self._limits, deadline, self._room)
            reply = await endpoint.answer(call.hurried())
        except RequestError as error:
            exchange.code = error.code
            reply = refusal_reply(error)
        finally:
            self._room.give_back(exchange)
        await reply.send(send, without_body=scope["method"] == "HEAD")
