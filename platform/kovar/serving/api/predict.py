"""`POST /v1/predict`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic_core import to_json

from kovar.serving.answering import Answering
from kovar.serving.api.endpoint import Endpoint
from kovar.serving.api.reply import JSON_TYPE, Reply, server_timing
from kovar.serving.protocol.predict import (
    PredictRequest,
    PredictResponse,
    inputs_of,
    predict_body,
)
from kovar.serving.protocol.refusal import check_count, parse_request

if TYPE_CHECKING:
    from kovar.serving.api.call import Call


def predict_endpoint(answering: Answering) -> Endpoint:
    """Describe the endpoint of texts in, labels out."""

    async def predict(call: Call) -> Reply:
        request = await call.read(partial(parse_request, PredictRequest))
        model = answering.model(call.exchange, request.model)
        check_count(len(request.inputs), call.limits, field="inputs")
        texts = inputs_of(request)
        answer = await answering.predict(
            model,
            texts,
            call.exchange,
            deadline=call.deadline,
            truncate=request.truncate,
            attributions=request.attributions,
        )
        body = predict_body(
            model.served,
            answer.predictions,
            scores=request.scores,
            attributions=answer.attributions,
        )
        headers = (JSON_TYPE, *model.served.raw_headers, server_timing(answer.timing))
        return Reply(to_json(body), headers=headers)

    return Endpoint(
        method="POST",
        path="/v1/predict",
        summary="Classify texts",
        answer=predict,
        request=PredictRequest,
        response=PredictResponse,
    )
