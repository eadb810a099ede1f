"""The HTTP application of one replica; an ASGI application that knows nothing of Ray."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import kovar
from kovar.errors import KovarError, RequestError
from kovar.inference import Prediction
from kovar.serving import protocol
from kovar.serving.protocol import (
    ErrorResponse,
    InferRequest,
    InferResponse,
    PredictRequest,
    PredictResponse,
    ServedVersion,
)
from kovar.serving.spec import RequestLimits

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "x-kovar-request-id"
RETRY_AFTER_S = 1
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Predictor(Protocol):
    """What answers; `kovar.inference.BatchRunner` is one."""

    async def predict(self, texts: Sequence[str], *, deadline: float) -> list[Prediction]:
        """Predict texts; `deadline` is a moment on `time.monotonic`."""
        ...

    def check(self) -> None:
        """Raise KovarError when answers cannot come any more."""
        ...


def create_api(predictor: Predictor, *, served: ServedVersion, limits: RequestLimits) -> FastAPI:
    """Build the application: `/v1/predict`, the Open Inference Protocol v2, `/docs`.

    Args:
        predictor: what answers.
        served: the version that answers, named in the headers of every response.
        limits: what is refused before any work.
    """
    app = FastAPI(
        title=f"Kovar: {served.model}",
        version=str(served.version),
        redirect_slashes=False,
        responses={"default": {"model": ErrorResponse, "description": "a refusal"}},
    )
    app.add_middleware(_Envelope, headers=served.headers)
    _answer_mistakes(app)
    _add_prediction_route(app, predictor, served, limits)
    _add_metadata_routes(app, predictor, served)
    _add_inference_routes(app, predictor, served, limits)
    _describe_requests(app)
    return app


def _add_prediction_route(
    app: FastAPI, predictor: Predictor, served: ServedVersion, limits: RequestLimits
) -> None:
    @app.post(
        "/v1/predict",
        response_model=PredictResponse,
        openapi_extra=_body_of(PredictRequest),
        summary="Classify texts",
    )
    async def predict(http: Request) -> Response:
        deadline = time.monotonic() + limits.request_timeout_s
        request = protocol.parse_request(PredictRequest, await _read_body(http, limits, deadline))
        protocol.check_texts(request.inputs, limits)
        predictions = await predictor.predict(request.inputs, deadline=deadline)
        return _json(protocol.predict_response(served, predictions))


def _add_metadata_routes(app: FastAPI, predictor: Predictor, served: ServedVersion) -> None:
    def readiness(body: dict[str, Any]) -> Response:
        try:
            predictor.check()
        except KovarError:
            return _json(body | {"ready": False}, status=503)
        return _json(body | {"ready": True})

    @app.get("/v2/health/live", summary="Is the server up?")
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready", summary="Can the server answer?")
    async def ready() -> Response:
        return readiness({})

    @app.get("/v2", summary="Server metadata")
    async def server() -> Response:
        return _json(protocol.server_metadata(kovar.__version__))

    @app.get("/v2/models/{model}", summary="Model metadata")
    @app.get("/v2/models/{model}/versions/{version}", summary="Version metadata")
    async def metadata(model: str, version: str | None = None) -> Response:
        _check_name(served, model, version)
        return _json(protocol.model_metadata(served))

    @app.get("/v2/models/{model}/ready", summary="Can the model answer?")
    @app.get("/v2/models/{model}/versions/{version}/ready", summary="Can the version answer?")
    async def model_ready(model: str, version: str | None = None) -> Response:
        _check_name(served, model, version)
        return readiness({"name": served.model})


def _add_inference_routes(
    app: FastAPI, predictor: Predictor, served: ServedVersion, limits: RequestLimits
) -> None:
    route: dict[str, Any] = {
        "response_model": InferResponse,
        "openapi_extra": _body_of(InferRequest),
        "summary": "Classify texts (Open Inference Protocol)",
    }

    @app.post("/v2/models/{model}/infer", **route)
    @app.post("/v2/models/{model}/versions/{version}/infer", **route)
    async def infer(http: Request, model: str, version: str | None = None) -> Response:
        deadline = time.monotonic() + limits.request_timeout_s
        _check_name(served, model, version)
        request = protocol.parse_request(InferRequest, await _read_body(http, limits, deadline))
        protocol.requested_outputs(request)
        texts = protocol.texts_of(request)
        protocol.check_texts(texts, limits, field="inputs[0].data")
        predictions = await predictor.predict(texts, deadline=deadline)
        return _json(protocol.infer_response(served, request, predictions))


def _answer_mistakes(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        return _error(error.message, status=error.status, code=error.code, field=error.field)

    @app.exception_handler(HTTPException)
    async def not_routed(_: Request, error: HTTPException) -> Response:
        known = {404: ("no such path", "path_not_found"), 405: ("wrong method", "wrong_method")}
        message, code = known.get(error.status_code, ("the request was refused", "refused"))
        response = _error(message, status=error.status_code, code=code)
        response.headers.update(error.headers or {})
        return response


def _check_name(served: ServedVersion, model: str, version: str | None) -> None:
    if model != served.model:
        raise RequestError(
            f"unknown model, this application serves {served.model}",
            status=404,
            code="model_not_found",
        )
    if version not in (None, str(served.version), served.digest):
        raise RequestError(
            f"unknown version, this application serves version {served.version} of {served.model}",
            status=404,
            code="version_not_found",
        )


async def _read_body(http: Request, limits: RequestLimits, deadline: float) -> bytes:
    """Read a body that may be too large, too slow or cut off."""
    declared = http.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_body_bytes:
        raise _body_too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            async for chunk in http.stream():
                body += chunk
                if len(body) > limits.max_body_bytes:
                    raise _body_too_large(limits)
    except TimeoutError:
        raise RequestError(
            f"the body did not arrive within {limits.request_timeout_s:g} s",
            status=408,
            code="body_timeout",
        ) from None
    except ClientDisconnect:
        raise RequestError("the client went away", status=400, code="body_cut_off") from None
    return bytes(body)


def _body_too_large(limits: RequestLimits) -> RequestError:
    return RequestError(
        f"the body is larger than {limits.max_body_bytes} bytes", status=413, code="body_too_large"
    )


def _json(body: BaseModel | dict[str, Any], *, status: int = 200) -> Response:
    if isinstance(body, BaseModel):
        content = body.__pydantic_serializer__.to_json(body, exclude_none=True)
    else:
        content = to_json(body)
    return Response(content, status_code=status, media_type="application/json")


def _error(message: str, *, status: int, code: str, field: str | None = None) -> Response:
    response = _json({"error": message, "code": code, "field": field}, status=status)
    if status == 429:
        response.headers["retry-after"] = str(RETRY_AFTER_S)
    return response


class _Envelope:
    """Names the version and the request in every response, and lets no exception out.

    An exception that leaves the application is logged with its message by the server, and the
    message may quote the user's text.
    """

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception as problem:
            logger.error("request %s failed: %s", request_id, _place(problem))
            if not started:
                response = _error("the server failed", status=500, code="internal")
                await response(scope, receive, send_named)


def _request_id(headers: Headers) -> str:
    """Keep the caller's id where it is harmless in a header and a log."""
    given = headers.get(REQUEST_ID_HEADER) or headers.get("x-request-id") or ""
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _place(problem: Exception) -> str:
    """Name an exception by its kind and line; its message stays out."""
    last = problem.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last else "unknown"
    return f"{type(problem).__name__} at {where}"


def _body_of(kind: type[BaseModel]) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}
    }


def _describe_requests(app: FastAPI) -> None:
    """Add the schemas of the bodies, which the routes parse themselves, to the OpenAPI document."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        schemas = document["components"]["schemas"]
        for kind in (PredictRequest, InferRequest):
            schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[kind.__name__] = schema
        return document

    app.openapi = openapi  # type: ignore[method-assign]
