"""Requests and answers on the wire: `/v1/predict` and the Open Inference Protocol v2 (REST).

Pure functions between JSON bytes and texts or predictions. Every mistake is a `RequestError` that
names the field and never repeats what the user sent.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, Field, JsonValue, ValidationError
from pydantic_core import from_json

from kovar.config import Config, dotted
from kovar.errors import RequestError
from kovar.inference import Prediction
from kovar.serving.spec import RequestLimits

TEXT_INPUT = "text"
LABEL_OUTPUT = "label"
SCORES_OUTPUT = "scores"

RequestT = TypeVar("RequestT", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class ServedVersion:
    """The one version that answers; part of every response."""

    model: str
    version: int
    digest: str
    labels: tuple[str, ...]
    max_length: int
    runtime: str
    precision: str

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every response."""
        return {
            "x-kovar-model": self.model,
            "x-kovar-version": str(self.version),
            "x-kovar-digest": self.digest,
        }


class PredictRequest(Config):
    """Body of `POST /v1/predict`."""

    inputs: list[str] = Field(description="texts to classify")


class PredictedText(Config):
    """The answer for one text."""

    label: str = Field(description="label with the highest probability")
    score: float = Field(description="its probability")
    scores: dict[str, float] = Field(description="label → probability")
    truncated: bool = Field(description="only the beginning of the text was read")


class PredictResponse(Config):
    """Answer of `POST /v1/predict`, one prediction per text, in order."""

    model: str = Field(description="name of the model")
    version: int = Field(description="number of the version")
    digest: str = Field(description="SHA-256 of the version's manifest")
    predictions: list[PredictedText] = Field(description="one per text")


class RequestTensor(Config):
    """One input tensor."""

    name: str = Field(description="`text`")
    shape: list[int] = Field(description="[n] or [n, 1]")
    datatype: str = Field(description="`BYTES`")
    parameters: dict[str, JsonValue] = Field(default={}, description="not used")
    data: list[JsonValue] = Field(description="texts, flat or nested as the shape says")


class RequestedOutput(Config):
    """An output that the client asks for."""

    name: str = Field(description="`label` or `scores`")
    parameters: dict[str, JsonValue] = Field(default={}, description="not used")


class InferRequest(Config):
    """Body of `POST /v2/models/{name}/infer`."""

    id: str | None = Field(default=None, max_length=256, description="repeated in the answer")
    parameters: dict[str, JsonValue] = Field(default={}, description="not used")
    inputs: list[RequestTensor] = Field(description="exactly one tensor, named `text`")
    outputs: list[RequestedOutput] | None = Field(
        default=None, description="outputs to return; all when absent"
    )


class ResponseTensor(Config):
    """One output tensor; `data` is flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str] | list[float]


class InferResponse(Config):
    """Answer of `POST /v2/models/{name}/infer`."""

    id: str | None = None
    model_name: str
    model_version: str
    parameters: dict[str, JsonValue]
    outputs: list[ResponseTensor]


class ErrorResponse(Config):
    """Body of every refusal."""

    error: str = Field(description="what is wrong and what is allowed")
    code: str = Field(description="short name of the refusal, for programs")
    field: str | None = Field(description="the field at fault")


def parse_request(kind: type[RequestT], body: bytes) -> RequestT:
    """Read a JSON body.

    Raises:
        RequestError: 400 the body is not JSON (NaN is not JSON); 422 it has other fields or types.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as problem:
        # The parser names a position and never quotes the body.
        raise RequestError(
            f"the body is not valid JSON: {problem}", status=400, code="invalid_json"
        ) from None
    try:
        return kind.model_validate(value)
    except ValidationError as problem:
        raise _refusal(kind, problem) from None


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def _refusal(kind: type[BaseModel], problem: ValidationError) -> RequestError:
    """Describe the first mistake by its place and kind; pydantic's own text may quote the input."""
    errors = problem.errors(include_url=False, include_input=False, include_context=False)
    item = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    path = item["loc"]
    match item["type"]:
        case "extra_forbidden":
            plain = _PLAIN_NAME.fullmatch(str(path[-1]))
            place = path if plain else path[:-1]
            return RequestError("unknown field", code="unknown_field", field=dotted(place) or None)
        case "missing":
            return RequestError("this field is required", code="missing_field", field=dotted(path))
        case "model_type":
            allowed = ", ".join(kind.model_fields) if not path else "its fields"
            return RequestError(
                f"expected a JSON object with {allowed}",
                code="wrong_type",
                field=dotted(path) or None,
            )
        case "string_too_long":
            return RequestError("too long", code="too_long", field=dotted(path))
        case other:
            expected = _EXPECTED.get(other, "another type")
            return RequestError(
                f"wrong type: expected {expected}", code="wrong_type", field=dotted(path)
            )


_EXPECTED = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "an object",
    "int_type": "an integer",
}


def check_texts(texts: Sequence[str], limits: RequestLimits, *, field: str = "inputs") -> None:
    """Refuse texts before they are tokenized.

    Raises:
        RequestError: 422 no texts, too many, an empty one or one that is too long.
    """
    if not texts:
        raise RequestError("at least one text is needed", code="inputs_empty", field=field)
    if len(texts) > limits.max_inputs:
        raise RequestError(
            f"{len(texts)} texts, at most {limits.max_inputs} are allowed in one request",
            code="too_many_inputs",
            field=field,
        )
    for index, text in enumerate(texts):
        if len(text) > limits.max_text_characters:
            raise RequestError(
                f"{len(text)} characters, at most {limits.max_text_characters} are allowed",
                code="text_too_long",
                field=f"{field}[{index}]",
            )
        if not text.strip():
            raise RequestError("the text is empty", code="text_empty", field=f"{field}[{index}]")


def texts_of(request: InferRequest) -> list[str]:
    """Return the texts of the input tensor.

    Raises:
        RequestError: 400 the tensor has another name, datatype or shape than this model takes.
    """
    if len(request.inputs) != 1:
        raise _wrong("inputs", f"{len(request.inputs)} tensors, exactly one is allowed: text")
    tensor = request.inputs[0]
    if tensor.name != TEXT_INPUT:
        raise _wrong("inputs[0].name", f"unknown input, the model takes {TEXT_INPUT}")
    if tensor.datatype != "BYTES":
        raise _wrong("inputs[0].datatype", "wrong datatype, the model takes BYTES")
    if "binary_data_size" in tensor.parameters:
        raise _wrong("inputs[0].parameters", "binary tensors are not supported, send JSON data")
    shape = tensor.shape
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]) or min(shape) < 0:
        raise _wrong("inputs[0].shape", "wrong shape, the model takes [n] or [n, 1]")
    data = _flat(tensor.data, nested=len(shape) == 2)
    if len(data) != math.prod(shape):
        raise _wrong(
            "inputs[0].data", f"the shape says {math.prod(shape)} elements, data has {len(data)}"
        )
    texts = [element for element in data if isinstance(element, str)]
    if len(texts) != len(data):
        raise _wrong("inputs[0].data", "wrong datatype, every element must be a text")
    return texts


def _flat(data: list[JsonValue], *, nested: bool) -> list[JsonValue]:
    """The protocol lets a client send [n, 1] either flat or as rows of one element."""
    rows = [element for element in data if isinstance(element, list) and len(element) == 1]
    return [row[0] for row in rows] if nested and data and len(rows) == len(data) else data


def _wrong(field: str, message: str) -> RequestError:
    return RequestError(message, status=400, code="invalid_tensor", field=field)


def predict_response(served: ServedVersion, predictions: Sequence[Prediction]) -> PredictResponse:
    """Answer `POST /v1/predict`."""
    return PredictResponse(
        model=served.model,
        version=served.version,
        digest=served.digest,
        predictions=[
            PredictedText(
                label=item.label, score=item.score, scores=item.scores, truncated=item.truncated
            )
            for item in predictions
        ],
    )


def infer_response(
    served: ServedVersion, request: InferRequest, predictions: Sequence[Prediction]
) -> InferResponse:
    """Answer `POST /v2/models/{name}/infer` with the outputs that were asked for."""
    return InferResponse(
        id=request.id,
        model_name=served.model,
        model_version=str(served.version),
        parameters={"digest": served.digest},
        outputs=[_output(name, served.labels, predictions) for name in requested_outputs(request)],
    )


def requested_outputs(request: InferRequest) -> list[str]:
    """Return the names of the outputs to send.

    Raises:
        RequestError: 400 the model has no such output.
    """
    known = [LABEL_OUTPUT, SCORES_OUTPUT]
    for index, output in enumerate(request.outputs or []):
        if output.name not in known:
            raise _wrong(f"outputs[{index}].name", f"unknown output, there are {', '.join(known)}")
    return [output.name for output in request.outputs] if request.outputs else known


def _output(
    name: str, labels: tuple[str, ...], predictions: Sequence[Prediction]
) -> ResponseTensor:
    if name == LABEL_OUTPUT:
        data = [item.label for item in predictions]
        return ResponseTensor(name=name, shape=[len(data)], datatype="BYTES", data=data)
    scores = [item.scores[label] for item in predictions for label in labels]
    shape = [len(predictions), len(labels)]
    return ResponseTensor(name=name, shape=shape, datatype="FP32", data=scores)


def server_metadata(platform_version: str) -> dict[str, Any]:
    """Answer `GET /v2`."""
    return {"name": "kovar", "version": platform_version, "extensions": []}


def model_metadata(served: ServedVersion) -> dict[str, Any]:
    """Answer `GET /v2/models/{name}`; the labels are in the order of the `scores` output."""
    return {
        "name": served.model,
        "versions": [str(served.version)],
        "platform": f"kovar_{served.runtime}",
        "inputs": [{"name": TEXT_INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": LABEL_OUTPUT, "datatype": "BYTES", "shape": [-1]},
            {"name": SCORES_OUTPUT, "datatype": "FP32", "shape": [-1, len(served.labels)]},
        ],
        "parameters": {
            "digest": served.digest,
            "labels": list(served.labels),
            "max_length": served.max_length,
            "precision": served.precision,
        },
    }
