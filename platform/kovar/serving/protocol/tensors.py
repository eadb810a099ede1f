"""Tensors of the Open Inference Protocol: JSON data, and raw bytes of its binary extension.

Sources: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
and https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kovar.errors import RequestError

BYTES: Final = "BYTES"
INT32: Final = "INT32"
INT64: Final = "INT64"
FP32: Final = "FP32"
BOOL: Final = "BOOL"

_CODES: Final = {INT32: "i", INT64: "q", FP32: "f", BOOL: "b"}
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor, whichever way it traveled.

    Attributes:
        name: of the model's input or output.
        datatype: the protocol's name, such as `INT64`.
        shape: sizes.
        data: plain values in row-major order; texts for `BYTES`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any]


def invalid_tensor(field: str, message: str) -> RequestError:
    """Build (not raise) the refusal of a tensor."""
    return RequestError(message, status=400, code="invalid_tensor", field=field)


def check_elements(tensor: Tensor, field: str) -> None:
    """Refuse a tensor whose data is not what its shape and datatype say.

    Raises:
        RequestError: 400, naming the field.
    """
    if any(size < 0 for size in tensor.shape):
        raise invalid_tensor(f"{field}.shape", "a size below 0")
    expected = math.prod(tensor.shape)
    if len(tensor.data) != expected:
        raise _other_number(field, expected, str(len(tensor.data)))
    kind = _PYTHON.get(tensor.datatype)
    if kind is None:
        raise invalid_tensor(f"{field}.datatype", "wrong datatype, no input of the model has it")
    if not all(type(element) in kind for element in tensor.data):
        raise invalid_tensor(f"{field}.data", f"an element that is not {tensor.datatype}")


_PYTHON: Final[dict[str, tuple[type, ...]]] = {
    BYTES: (str,),
    INT32: (int,),
    INT64: (int,),
    FP32: (float, int),
    BOOL: (bool,),
}


def flat(data: list[Any], shape: Sequence[int]) -> list[Any]:
    """Return the elements in row-major order; a client may send them flat or nested as the shape.

    What is nested in another way is returned as it came: its elements are of no datatype.
    """
    rows = data
    if shape and len(data) != shape[0]:
        return data
    for size in shape[1:]:
        if not rows or any(not isinstance(row, list) or len(row) != size for row in rows):
            return data
        rows = [element for row in rows for element in row]
    return rows


def from_raw(datatype: str, raw: bytes | memoryview, field: str, *, num_elements: int) -> list[Any]:
    """Read elements from the binary extension's bytes, which are little-endian.

    Args:
        datatype: the protocol's name of it.
        raw: the bytes.
        field: the tensor's place.
        num_elements: as the shape says; nothing beyond is decoded.

    Raises:
        RequestError: 400 the bytes are cut off, no UTF-8, of another number of elements, or of a
            datatype that no input has.
    """
    if datatype == BYTES:
        return _texts(bytes(raw), field, num_elements)
    code = _CODES.get(datatype)
    if code is None:
        raise invalid_tensor(f"{field}.datatype", "wrong datatype, no input of the model has it")
    elements = array(code)
    if len(raw) % elements.itemsize:
        raise invalid_tensor(field, f"the bytes are no whole number of {datatype} elements")
    if len(raw) != num_elements * elements.itemsize:
        raise _other_number(field, num_elements, str(len(raw) // elements.itemsize))
    elements.frombytes(raw)
    if sys.byteorder == "big":
        elements.byteswap()
    return list(map(bool, elements)) if datatype == BOOL else elements.tolist()


def _texts(raw: bytes, field: str, num_elements: int) -> list[str]:
    """Read texts, each after its length in four bytes."""
    texts: list[str] = []
    place = 0
    while place < len(raw):
        if len(texts) == num_elements:
            raise _other_number(field, num_elements, "more")
        start = place + _LENGTH.size
        if start > len(raw):
            raise invalid_tensor(field, "the bytes end within the length of a text")
        place = start + _LENGTH.unpack_from(raw, place)[0]
        if place > len(raw):
            raise invalid_tensor(field, "the bytes end within a text")
        texts.append(text_of(raw[start:place], f"{field}.data[{len(texts)}]"))
    return texts


def _other_number(field: str, num_elements: int, found: str) -> RequestError:
    return invalid_tensor(
        f"{field}.data", f"the shape says {num_elements} elements, data has {found}"
    )


def text_of(raw: bytes, field: str) -> str:
    """Decode one text.

    Raises:
        RequestError: 400 it is not UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise invalid_tensor(field, "the text is not UTF-8") from None


def to_raw(tensor: Tensor) -> bytes:
    """Write the elements as the binary extension does."""
    if tensor.datatype == BYTES:
        texts = [element.encode() for element in tensor.data]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    elements = array(_CODES[tensor.datatype], tensor.data)
    if sys.byteorder == "big":
        elements.byteswap()
    return elements.tobytes()
