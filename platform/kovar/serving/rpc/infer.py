"""Inference requests and answers as messages of gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kovar.serving.protocol.bounds import MAX_DIMENSIONS, Bounds, check_tensors
from kovar.serving.protocol.infer import (
    Inference,
    Inferred,
    WantedOutput,
    answer_parameters,
    client_timeout,
    output_tensor,
)
from kovar.serving.protocol.refusal import too_long, wrong_type
from kovar.serving.protocol.served import ServedVersion
from kovar.serving.protocol.tensors import (
    BOOL,
    BYTES,
    FP32,
    INT32,
    INT64,
    Tensor,
    from_raw,
    invalid_tensor,
    text_of,
    to_raw,
)
from kovar.serving.rpc.messages import message

MAX_ID: Final = 256
_CONTENTS: Final = {
    BOOL: "bool_contents",
    INT32: "int_contents",
    INT64: "int64_contents",
    FP32: "fp32_contents",
    BYTES: "bytes_contents",
}


def read_inference(request: Any, bounds: Bounds) -> Inference:
    """Read a `ModelInferRequest`.

    Args:
        request: the message.
        bounds: what the tensors may hold.

    Raises:
        RequestError: 400 or 422, naming the field.
    """
    if len(request.id) > MAX_ID:
        raise too_long("id")
    truncate = _parameter(request, "truncate")
    if truncate is not None and not isinstance(truncate, bool):
        raise wrong_type("parameters.truncate", expected="true or false")
    check_tensors(len(request.inputs), field="inputs")
    check_tensors(len(request.outputs), field="outputs")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid_tensor(
            "raw_input_contents", f"{len(request.inputs)} tensors have {len(raw)} contents"
        )
    return Inference(
        id=request.id,
        inputs=[
            _tensor(item, raw[index] if raw else None, f"inputs[{index}]", bounds)
            for index, item in enumerate(request.inputs)
        ],
        outputs=[
            _wanted(output, f"outputs[{index}]") for index, output in enumerate(request.outputs)
        ],
        truncate=truncate,
        timeout_s=client_timeout(_parameter(request, "timeout"), "parameters.timeout"),
        binary=bool(raw),
    )


def _parameter(holder: Any, name: str) -> object:
    """Return a parameter of a request or an output; of a map with any number of others."""
    if name not in holder.parameters:
        return None
    parameter = holder.parameters[name]
    choice = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, choice) if choice else None


def _tensor(item: Any, raw: bytes | None, field: str, bounds: Bounds) -> Tensor:
    contents = _CONTENTS.get(item.datatype)
    if contents is None:
        raise invalid_tensor(f"{field}.datatype", "wrong datatype, no input of the model has it")
    if raw is not None and item.HasField("contents"):
        raise invalid_tensor(f"{field}.contents", "the tensor has raw contents too")
    shape = list(item.shape[: MAX_DIMENSIONS + 1])
    number = bounds.elements(item.datatype, shape, field=field)
    data: list[Any] = []
    if number is not None and raw is not None:
        data = from_raw(item.datatype, raw, field, num_elements=number)
    elif number is not None:
        # One more than the shape says is enough to be refused.
        data = list(getattr(item.contents, contents)[: number + 1])
    if raw is None and item.datatype == BYTES:
        data = [text_of(text, f"{field}.contents[{row}]") for row, text in enumerate(data)]
    return Tensor(item.name, item.datatype, tuple(shape), data)


def _wanted(output: Any, field: str) -> WantedOutput:
    found = _parameter(output, "classification")
    classes = 0 if found is None else found
    if type(classes) is not int or classes < 0:
        raise wrong_type(f"{field}.parameters.classification", expected="a number from 0")
    return WantedOutput(output.name, num_classes=classes)


def write_inference(
    request: Inference, outputs: Sequence[WantedOutput], served: ServedVersion, answer: Inferred
) -> Any:
    """Return a `ModelInferResponse`; its contents are raw where the request's were."""
    response = message(
        "ModelInferResponse",
        id=request.id,
        model_name=served.model,
        model_version=str(served.version),
    )
    for name, value in answer_parameters(served, answer).items():
        kind = "bool_param" if isinstance(value, bool) else "string_param"
        setattr(response.parameters[name], kind, value)
    for output in outputs:
        tensor = output_tensor(output, served, answer)
        entry = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if request.binary:
            response.raw_output_contents.append(to_raw(tensor))
        else:
            data = [text.encode() for text in tensor.data] if tensor.datatype == BYTES else None
            getattr(entry.contents, _CONTENTS[tensor.datatype]).extend(data or tensor.data)
    return response
