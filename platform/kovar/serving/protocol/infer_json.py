"""`POST /v2/models/{model}/infer`: the protocol's JSON, and bytes after it (binary extension)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticKnownError, to_json

from kovar.config import Config
from kovar.errors import RequestError
from kovar.serving.protocol.bounds import MAX_DIMENSIONS, MAX_TENSORS, Bounds
from kovar.serving.protocol.infer import (
    TEXT_INPUT,
    Inference,
    Inferred,
    WantedOutput,
    answer_parameters,
    client_timeout,
    output_tensor,
)
from kovar.serving.protocol.refusal import parse_request, wrong_type
from kovar.serving.protocol.served import ServedVersion
from kovar.serving.protocol.tensors import (
    BYTES,
    Tensor,
    flat,
    from_raw,
    invalid_tensor,
    text_of,
    to_raw,
)

HEADER_LENGTH: Final = "inference-header-content-length"
"""Header that says how many bytes of a body are JSON; tensors follow them."""


def _finite(value: Any) -> Any:
    """Refuse a number that no float holds, such as 1e400, wherever it stands in a parameter."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        _finite(item)
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticKnownError("finite_number")
    return value


# pydantic's own JsonValue would name its alternatives in the place of a mistake.
Parameters = dict[str, Annotated[Any, AfterValidator(_finite), WithJsonSchema({})]]


class RequestTensor(Config):
    """One input tensor."""

    name: str = Field(description="`text`, or for token ids `input_ids`")
    shape: list[int] = Field(
        max_length=MAX_DIMENSIONS, description="[n] or [n, 1]; [n, tokens] for token ids"
    )
    datatype: str = Field(description="`BYTES`; `INT64` or `INT32` for token ids")
    parameters: Parameters = Field(
        default={}, description="`binary_data_size`: bytes of this tensor after the JSON"
    )
    data: list[Any] | None = Field(
        default=None, description="elements, flat or nested as the shape says"
    )


class RequestedOutput(Config):
    """An output that the client asks for."""

    name: str = Field(description="`label`, `scores`, `truncated` or `embedding`")
    parameters: Parameters = Field(
        default={},
        description="`binary_data`: send it as bytes; `classification`: that many best labels",
    )


class InferRequest(Config):
    """Body of `POST /v2/models/{name}/infer`."""

    id: str | None = Field(default=None, max_length=256, description="repeated in the answer")
    parameters: Parameters = Field(
        default={},
        description="`binary_data_output`: all outputs as bytes; `truncate`: as in /v1/predict; "
        "`timeout`: microseconds that the client waits; others are ignored",
    )
    inputs: list[RequestTensor] = Field(
        max_length=MAX_TENSORS,
        description="`text`, and `text_pair` beside it for pairs; or `input_ids`, and "
        "`attention_mask` and `token_type_ids` beside it",
    )
    outputs: list[RequestedOutput] | None = Field(
        default=None,
        max_length=MAX_TENSORS,
        description="outputs to return; `label` and `scores` when absent",
    )


class ResponseTensor(Config):
    """One output tensor; `data` is flat, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, JsonValue] | None = None
    data: list[str] | list[float] | list[bool] | None = None


class InferResponse(Config):
    """Answer of `POST /v2/models/{name}/infer`."""

    id: str | None = None
    model_name: str
    model_version: str
    parameters: dict[str, JsonValue]
    outputs: list[ResponseTensor]


def read_inference(body: bytes, header_length: str | None, bounds: Bounds) -> Inference:
    """Read a request.

    Args:
        body: JSON, and raw tensors after it where `header_length` is given.
        header_length: value of the header `Inference-Header-Content-Length`; where it is 0, the
            body is one text.
        bounds: what the tensors may hold.

    Raises:
        RequestError: 400 or 422, naming the field.
    """
    size = len(body) if header_length is None else _json_size(header_length, len(body))
    if header_length is not None and size == 0:
        return _raw_request(body)
    request = parse_request(InferRequest, body[:size])
    parameters = request.parameters
    truncate = parameters.get("truncate")
    if truncate is not None and not isinstance(truncate, bool):
        raise wrong_type("parameters.truncate", expected="true or false")
    binary = parameters.get("binary_data_output")
    if binary is not None and not isinstance(binary, bool):
        raise wrong_type("parameters.binary_data_output", expected="true or false")
    return Inference(
        id=request.id or "",
        inputs=_tensors(request.inputs, memoryview(body)[size:], bounds),
        outputs=[
            _wanted(output, f"outputs[{index}]", bool(binary))
            for index, output in enumerate(request.outputs or ())
        ],
        truncate=truncate,
        timeout_s=client_timeout(parameters.get("timeout"), "parameters.timeout"),
        binary=bool(binary),
    )


def _raw_request(body: bytes) -> Inference:
    """Read a body without JSON: it is one text, and every output is sent as bytes.

    Source: Triton's http_server.cc, `EVBufferToRawInput`.
    """
    text = text_of(body, "inputs[0].data[0]")
    return Inference(inputs=[Tensor(TEXT_INPUT, BYTES, (1,), [text])], binary=True)


def _json_size(declared: str, num_bytes: int) -> int:
    # More than 20 digits are no size; Python refuses to read some thousands of them.
    is_number = declared.isascii() and declared.isdecimal() and len(declared) <= 20
    if not (is_number and int(declared) <= num_bytes):
        raise RequestError(
            f"{HEADER_LENGTH} must be from 0 to the body's size", status=400, code="invalid_header"
        )
    return int(declared)


def _tensors(inputs: Sequence[RequestTensor], raw: memoryview, bounds: Bounds) -> list[Tensor]:
    tensors: list[Tensor] = []
    place = 0
    for index, item in enumerate(inputs):
        field = f"inputs[{index}]"
        size = item.parameters.get("binary_data_size")
        if size is None and item.data is None:
            raise RequestError(
                "this field is required", code="missing_field", field=f"{field}.data"
            )
        number = bounds.elements(item.datatype, item.shape, field=field)
        if size is None:
            data = [] if number is None else flat(item.data or [], item.shape)
        else:
            data = _raw_data(item, size, raw[place:], field, number)
            place += len(raw[place:][:size]) if isinstance(size, int) else 0
        tensors.append(Tensor(item.name, item.datatype, tuple(item.shape), data))
    if place != len(raw):
        raise invalid_tensor("inputs", f"{len(raw)} bytes follow the JSON, the tensors say {place}")
    return tensors


def _raw_data(
    item: RequestTensor, size: object, raw: memoryview, field: str, number: int | None
) -> list[Any]:
    place = f"{field}.parameters.binary_data_size"
    if item.data is not None:
        raise invalid_tensor(place, "the tensor has data in JSON too")
    if type(size) is not int or not 0 <= size <= len(raw):
        raise invalid_tensor(place, f"expected from 0 to the {len(raw)} bytes that follow")
    if number is None:
        return []
    return from_raw(item.datatype, raw[:size], field, num_elements=number)


def _wanted(output: RequestedOutput, field: str, binary: bool) -> WantedOutput:
    chosen = output.parameters.get("binary_data", binary)
    classes = output.parameters.get("classification", 0)
    if not isinstance(chosen, bool):
        raise wrong_type(f"{field}.parameters.binary_data", expected="true or false")
    if type(classes) is not int or classes < 0:
        raise wrong_type(f"{field}.parameters.classification", expected="a number from 0")
    return WantedOutput(output.name, binary=chosen, num_classes=classes)


def write_inference(
    request: Inference, outputs: Sequence[WantedOutput], served: ServedVersion, answer: Inferred
) -> tuple[bytes, int | None]:
    """Write the answer.

    Returns:
        The body, and how many of its bytes are JSON when tensors follow; None when none does.
    """
    written: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for output in outputs:
        tensor = output_tensor(output, served, answer)
        entry: dict[str, Any] = {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
        }
        if output.binary:
            raw.append(to_raw(tensor))
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = tensor.data
        written.append(entry)
    body: dict[str, Any] = {"id": request.id} if request.id else {}
    body |= {
        "model_name": served.model,
        "model_version": str(served.version),
        "parameters": answer_parameters(served, answer),
        "outputs": written,
    }
    content = to_json(body)
    return (b"".join([content, *raw]), len(content)) if raw else (content, None)
