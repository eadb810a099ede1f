"""`POST /v1/embeddings` and `GET /v1/models`, in the shape of OpenAI's API."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic_core import to_json

from kovar.serving.answering import Answering
from kovar.serving.api.endpoint import Endpoint
from kovar.serving.api.reply import JSON_TYPE, Reply, json_reply, server_timing
from kovar.serving.protocol.embeddings import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    embedding_inputs,
    embeddings_body,
    models_body,
)
from kovar.serving.protocol.refusal import parse_request, text_fields

if TYPE_CHECKING:
    from kovar.serving.api.call import Call


def embeddings_endpoints(answering: Answering) -> list[Endpoint]:
    """Describe the endpoints that clients of OpenAI's API know."""

    async def embeddings(call: Call) -> Reply:
        request = await call.read(partial(parse_request, EmbeddingsRequest))
        model = answering.model(call.exchange, request.model)
        inputs = embedding_inputs(request, model.served, call.limits)
        with text_fields("input[{index}]"):
            answer = await answering.embed(
                model,
                inputs,
                call.exchange,
                deadline=call.deadline,
                truncate=request.truncate,
            )
        body = embeddings_body(
            model.served,
            answer.outputs,
            num_tokens=answer.num_tokens,
            encoding=request.encoding_format,
        )
        headers = (JSON_TYPE, *model.served.raw_headers, server_timing(answer.timing))
        return Reply(to_json(body), headers=headers)

    async def models(_: Call) -> Reply:
        return json_reply(models_body(answering.models.models))

    return [
        Endpoint(
            method="POST",
            path="/v1/embeddings",
            summary="Embeddings of texts (OpenAI's shape)",
            answer=embeddings,
            request=EmbeddingsRequest,
            response=EmbeddingsResponse,
        ),
        Endpoint(
            method="GET",
            path="/v1/models",
            summary="The application's models (OpenAI's shape)",
            answer=models,
        ),
    ]
