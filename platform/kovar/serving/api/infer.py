"""Inference and metadata of the Open Inference Protocol v2 over HTTP."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import kovar
from kovar.serving.answering import Answering
from kovar.serving.api.endpoint import Endpoint
from kovar.serving.api.reply import JSON_TYPE, Reply, json_reply, server_timing
from kovar.serving.protocol.bounds import Bounds
from kovar.serving.protocol.infer import wanted_outputs
from kovar.serving.protocol.infer_json import (
    HEADER_LENGTH,
    InferRequest,
    InferResponse,
    read_inference,
    write_inference,
)
from kovar.serving.protocol.metadata import model_metadata, server_metadata

if TYPE_CHECKING:
    from kovar.serving.api.call import Call

_HEADER_LENGTH = HEADER_LENGTH.encode()
_VERSIONS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")


def infer_endpoints(answering: Answering) -> list[Endpoint]:
    """Describe the endpoints of tensors in, tensors out."""

    async def infer(call: Call) -> Reply:
        model = answering.model(call.exchange, call.params["model"], call.params.get("version"))
        request = await call.read(
            partial(
                read_inference,
                header_length=call.header(_HEADER_LENGTH),
                bounds=Bounds.of(call.limits, model.served),
            )
        )
        outputs = wanted_outputs(request)
        answer, timing = await answering.infer(
            model, request, outputs, call.exchange, deadline=call.deadline
        )
        content, json_size = write_inference(request, outputs, model.served, answer)
        headers = (*model.served.raw_headers, server_timing(timing))
        if json_size is None:
            return Reply(content, headers=(JSON_TYPE, *headers))
        kind = (b"content-type", b"application/octet-stream")
        length = (_HEADER_LENGTH, str(json_size).encode())
        return Reply(content, headers=(kind, length, *headers))

    return [
        Endpoint(
            method="POST",
            path=f"{path}/infer",
            summary="Classify texts (Open Inference Protocol)",
            answer=infer,
            request=InferRequest,
            response=InferResponse,
        )
        for path in _VERSIONS
    ]


def metadata_endpoints(answering: Answering) -> list[Endpoint]:
    """Describe the endpoints of health and metadata."""
    models = answering.models

    async def live(_: Call) -> Reply:
        return json_reply({"live": True})

    async def ready(_: Call) -> Reply:
        is_ready = models.is_ready
        return json_reply({"ready": is_ready}, status=200 if is_ready else 503)

    async def server(_: Call) -> Reply:
        return json_reply(server_metadata(kovar.__version__))

    async def metadata(call: Call) -> Reply:
        model = answering.model(call.exchange, call.params["model"], call.params.get("version"))
        body = json_reply(model_metadata(model.served, models.versions_of(model.served.model)))
        return Reply(body.body, headers=(JSON_TYPE, *model.served.raw_headers))

    async def model_ready(call: Call) -> Reply:
        model = answering.model(call.exchange, call.params["model"], call.params.get("version"))
        is_ready, is_loaded = model.is_ready, model.state.name == "READY"
        facts = {"name": model.served.model, "ready": is_ready, "loaded": is_loaded}
        body = json_reply(facts)
        headers = (JSON_TYPE, *model.served.raw_headers)
        return Reply(body.body, 200 if is_ready else 503, headers)

    paths = [
        ("GET", "/v2/health/live", "Is the server up?", live),
        ("GET", "/v2/health/ready", "Can the server answer?", ready),
        ("GET", "/v2", "Server metadata", server),
        *(("GET", path, "Model metadata", metadata) for path in _VERSIONS),
        *(("GET", f"{path}/ready", "Can the model answer?", model_ready) for path in _VERSIONS),
    ]
    return [
        Endpoint(method=method, path=path, summary=summary, answer=answer)
        for method, path, summary, answer in paths
    ]
