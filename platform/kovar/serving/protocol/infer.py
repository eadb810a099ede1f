"""What an inference asks for and answers, whether it came as JSON, as bytes or over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kovar.errors import RequestError
from kovar.inference import Encoded, Prediction, Text
from kovar.serving.protocol.embeddings import Embedded
from kovar.serving.protocol.refusal import check_count, check_texts
from kovar.serving.protocol.served import ServedVersion
from kovar.serving.protocol.tensors import (
    BOOL,
    BYTES,
    FP32,
    INT32,
    INT64,
    Tensor,
    check_elements,
    invalid_tensor,
)
from kovar.serving.spec import RequestLimits

TEXT_INPUT: Final = "text"
PAIR_INPUT: Final = "text_pair"
IDS_INPUT: Final = "input_ids"
MASK_INPUT: Final = "attention_mask"
TYPES_INPUT: Final = "token_type_ids"

LABEL_OUTPUT: Final = "label"
SCORES_OUTPUT: Final = "scores"
TRUNCATED_OUTPUT: Final = "truncated"
EMBEDDING_OUTPUT: Final = "embedding"
DEFAULT_OUTPUTS: Final = (LABEL_OUTPUT, SCORES_OUTPUT)
OUTPUTS: Final = (*DEFAULT_OUTPUTS, TRUNCATED_OUTPUT, EMBEDDING_OUTPUT)


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that the client asks for.

    Attributes:
        name: of the output.
        binary: send it as bytes after the JSON.
        num_classes: send this many best labels as texts `score:index:label` instead of scores
            (Triton's classification extension); 0 for scores.
    """

    name: str
    binary: bool = False
    num_classes: int = 0


@dataclass(frozen=True, slots=True)
class Inference:
    """One request of the protocol.

    Attributes:
        id: repeated in the answer.
        inputs: the tensors.
        outputs: what is wanted; empty for the default outputs.
        truncate: as in `PredictRequest`.
        timeout_s: seconds that the client waits, where it says so.
        binary: send every output that says nothing else as bytes.
    """

    inputs: Sequence[Tensor]
    id: str = ""
    outputs: Sequence[WantedOutput] = ()
    truncate: bool | None = None
    timeout_s: float | None = None
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Inferred:
    """What the model answered.

    Attributes:
        predictions: one per text.
        embeddings: one per text, where they are wanted.
    """

    predictions: Sequence[Prediction] = ()
    embeddings: Sequence[Embedded] = ()


def wanted_outputs(request: Inference) -> Sequence[WantedOutput]:
    """Return the outputs to send.

    Raises:
        RequestError: 400 the model has no such output, or one is asked for twice: the size of
            the answer is bounded by that of the texts, not by the number of names.
    """
    if not request.outputs:
        return [WantedOutput(name, binary=request.binary) for name in DEFAULT_OUTPUTS]
    for index, output in enumerate(request.outputs):
        place = f"outputs[{index}]"
        if output.name not in OUTPUTS:
            raise invalid_tensor(f"{place}.name", f"unknown output, there are {', '.join(OUTPUTS)}")
        if output.num_classes and output.name != SCORES_OUTPUT:
            raise invalid_tensor(f"{place}.parameters", "only scores can be sent as classes")
    if len({output.name for output in request.outputs}) != len(request.outputs):
        raise invalid_tensor("outputs", "an output appears twice")
    return request.outputs


def model_inputs(
    tensors: Sequence[Tensor], served: ServedVersion, limits: RequestLimits
) -> Sequence[Text | Encoded]:
    """Return what the model reads: texts, pairs of texts, or token ids.

    Raises:
        RequestError: 400 a tensor has another name, datatype, shape or content than the model
            takes; 422 too many texts, or one that is empty or too long.
    """
    places = {tensor.name: f"inputs[{index}]" for index, tensor in enumerate(tensors)}
    if len(places) != len(tensors):
        raise invalid_tensor("inputs", "a tensor appears twice")
    named = {tensor.name: tensor for tensor in tensors}
    first = IDS_INPUT if IDS_INPUT in named else TEXT_INPUT
    allowed = _BESIDE[first]
    for name, place in places.items():
        if name not in allowed:
            raise invalid_tensor(
                f"{place}.name", f"unknown input, the model takes {', '.join(allowed)}"
            )
    if first not in named:
        raise invalid_tensor("inputs", f"the tensor {first} is missing")
    for name, tensor in named.items():
        _check_datatype(tensor, places[name])
    if first == IDS_INPUT:
        return _token_ids(named, places, served, limits)
    return _texts(named, places, limits)


_BESIDE: Final = {
    TEXT_INPUT: (TEXT_INPUT, PAIR_INPUT),
    IDS_INPUT: (IDS_INPUT, MASK_INPUT, TYPES_INPUT),
}


def text_field(tensors: Sequence[Tensor]) -> str:
    """Return the pattern of a text's field; of token ids it is that of a row."""
    firsts = (TEXT_INPUT, IDS_INPUT)
    place = next(index for index, tensor in enumerate(tensors) if tensor.name in firsts)
    return f"inputs[{place}].data[{{index}}]"


def _check_datatype(tensor: Tensor, place: str) -> None:
    allowed = (BYTES,) if tensor.name in _BESIDE[TEXT_INPUT] else (INT64, INT32)
    if tensor.datatype not in allowed:
        raise invalid_tensor(
            f"{place}.datatype", f"wrong datatype, the model takes {' or '.join(allowed)}"
        )


def _texts(
    named: dict[str, Tensor], places: dict[str, str], limits: RequestLimits
) -> Sequence[Text]:
    for name, tensor in named.items():
        shape, place = tensor.shape, places[name]
        if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)) or min(shape) < 0:
            raise invalid_tensor(f"{place}.shape", "wrong shape, the model takes [n] or [n, 1]")
        check_elements(tensor, place)
        check_texts(tensor.data, limits, field=f"{place}.data")
    texts: Sequence[str] = named[TEXT_INPUT].data
    if PAIR_INPUT not in named:
        return texts
    pairs: Sequence[str] = named[PAIR_INPUT].data
    if len(pairs) != len(texts):
        raise invalid_tensor(f"{places[PAIR_INPUT]}.shape", f"as many as {TEXT_INPUT} are needed")
    return list(zip(texts, pairs, strict=True))


def _token_ids(
    named: dict[str, Tensor],
    places: dict[str, str],
    served: ServedVersion,
    limits: RequestLimits,
) -> list[Encoded]:
    shape, place = named[IDS_INPUT].shape, places[IDS_INPUT]
    if len(shape) != 2 or min(shape) < 0:
        raise invalid_tensor(f"{place}.shape", "wrong shape, the model takes [n, tokens]")
    check_count(shape[0], limits, field=f"{place}.shape[0]")
    if not 1 <= shape[1] <= served.max_length:
        raise invalid_tensor(
            f"{place}.shape[1]", f"from 1 to {served.max_length} tokens are allowed"
        )
    for name, tensor in named.items():
        if tensor.shape != shape:
            raise invalid_tensor(f"{places[name]}.shape", f"not the shape of {IDS_INPUT}")
        check_elements(tensor, places[name])
        largest = served.vocabulary_size if name == IDS_INPUT else 2
        if not 0 <= min(tensor.data) <= max(tensor.data) < largest:
            raise invalid_tensor(f"{places[name]}.data", f"from 0 to {largest - 1} are allowed")
    rows = {name: _rows(tensor) for name, tensor in named.items()}
    return [
        _encoded({name: rows[name][row] for name in rows}, places, row) for row in range(shape[0])
    ]


def _rows(tensor: Tensor) -> list[Sequence[int]]:
    number, width = tensor.shape
    return [tensor.data[row * width : (row + 1) * width] for row in range(number)]


def _encoded(row: dict[str, Sequence[int]], places: dict[str, str], number: int) -> Encoded:
    mask = row.get(MASK_INPUT, [1] * len(row[IDS_INPUT]))
    length = sum(mask)
    if not length or 0 in mask[:length]:
        raise invalid_tensor(
            f"{places[MASK_INPUT]}.data", f"row {number} is not some ones and then zeros"
        )
    types = list(row.get(TYPES_INPUT, ())[:length])
    second = types.index(1) if 1 in types else None
    if second is not None and 0 in types[second:]:
        raise invalid_tensor(
            f"{places[TYPES_INPUT]}.data", f"row {number} is not some zeros and then ones"
        )
    return Encoded(tuple(row[IDS_INPUT][:length]), second=second)


def output_tensor(output: WantedOutput, served: ServedVersion, answer: Inferred) -> Tensor:
    """Return one output of the model."""
    predictions = answer.predictions
    match output.name:
        case "label":
            return Tensor(LABEL_OUTPUT, BYTES, (len(predictions),), [p.label for p in predictions])
        case "truncated":
            flags = [item.truncated for item in predictions]
            return Tensor(TRUNCATED_OUTPUT, BOOL, (len(flags),), flags)
        case "embedding":
            numbers = [number for one in answer.embeddings for number in one.numbers.tolist()]
            shape = (len(answer.embeddings), served.embedding_size)
            return Tensor(EMBEDDING_OUTPUT, FP32, shape, numbers)
    if output.num_classes:
        return _classes(predictions, served.labels, output.num_classes)
    scores = [item.scores[label] for item in predictions for label in served.labels]
    return Tensor(SCORES_OUTPUT, FP32, (len(predictions), len(served.labels)), scores)


def _classes(
    predictions: Sequence[Prediction], labels: tuple[str, ...], num_classes: int
) -> Tensor:
    """Source: Triton's extension_classification.md."""
    number = min(num_classes, len(labels))
    texts: list[str] = []
    for item in predictions:
        scores = [item.scores[label] for label in labels]
        best = sorted(range(len(labels)), key=lambda index: -scores[index])[:number]
        texts += [f"{scores[index]:f}:{index}:{labels[index]}" for index in best]
    return Tensor(SCORES_OUTPUT, BYTES, (len(predictions), number), texts)


def answer_parameters(served: ServedVersion, answer: Inferred) -> dict[str, Any]:
    """Return the parameters of the answer; `truncated` stands there when a text was cut."""
    found: dict[str, Any] = {"digest": served.digest}
    texts: Sequence[Prediction | Embedded] = (*answer.predictions, *answer.embeddings)
    if any(item.truncated for item in texts):
        found["truncated"] = True
    return found


def client_timeout(value: object, field: str) -> float | None:
    """Read the parameter `timeout`, microseconds that the client waits; 0 for no limit.

    Raises:
        RequestError: 422 it is no whole number from 0 that fits 64 bits.
    """
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise RequestError("expected microseconds from 0", code="wrong_type", field=field)
    return value / 1e6 or None
