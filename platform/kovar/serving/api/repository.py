"""The model repository extension of the Open Inference Protocol v2 over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kovar.serving.answering import Answering
from kovar.serving.api.endpoint import Endpoint
from kovar.serving.api.reply import JSON_TYPE, Reply, json_reply
from kovar.serving.protocol.refusal import parse_request
from kovar.serving.protocol.repository import (
    IndexRequest,
    LoadRequest,
    check_load_parameters,
    repository_index,
)

if TYPE_CHECKING:
    from kovar.serving.api.call import Call

_EMPTY = b"{}"


def repository_endpoints(answering: Answering) -> list[Endpoint]:
    """Describe the endpoints that list the models and bring adapters into memory."""

    async def index(call: Call) -> Reply:
        wanted = parse_request(IndexRequest, await call.body() or _EMPTY)
        return json_reply(repository_index(answering.models.models, ready=wanted.ready))

    async def load(call: Call) -> Reply:
        model = answering.model(call.exchange, call.params["model"])
        wanted = parse_request(LoadRequest, await call.body() or _EMPTY)
        check_load_parameters(wanted.parameters)
        await answering.load(model.served.model, deadline=call.deadline)
        return Reply(b"", headers=(JSON_TYPE, *model.served.raw_headers))

    async def unload(call: Call) -> Reply:
        model = answering.model(call.exchange, call.params["model"])
        parse_request(LoadRequest, await call.body() or _EMPTY)
        answering.unload(model.served.model)
        return Reply(b"", headers=(JSON_TYPE, *model.served.raw_headers))

    return [
        Endpoint(
            method="POST",
            path="/v2/repository/index",
            summary="The application's models, and which are in memory",
            answer=index,
            request=IndexRequest,
        ),
        Endpoint(
            method="POST",
            path="/v2/repository/models/{model}/load",
            summary="Bring an adapter into memory",
            answer=load,
            request=LoadRequest,
        ),
        Endpoint(
            method="POST",
            path="/v2/repository/models/{model}/unload",
            summary="Let an adapter go from memory",
            answer=unload,
            request=LoadRequest,
        ),
    ]
