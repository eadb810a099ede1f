"""Reading safetensors headers: what a model folder holds, and whether it is whole.

The format (https://github.com/huggingface/safetensors#format): eight bytes with the length of the
header, a JSON header with dtype, shape and offsets of each tensor, then the tensors without gaps.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kovar.errors import ModelError

WEIGHTS_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"
MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the format itself."""

_PICKLES: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_BITS: Final = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64"), 64),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header.

    Args:
        dtype: name in the format, for example `F32`.
        shape: size of each dimension.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def is_parameter(self) -> bool:
        """Whether it holds fractions; integer tensors are buffers such as position ids."""
        return self.dtype.startswith(("F", "BF"))


def read_weights(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    """Return the weight files of a model folder and their tensors by name; load no tensor.

    Raises:
        ModelError: there are none, they are pickles, or a file is damaged; says which and what.
    """
    if (folder / WEIGHTS_FILE).is_file():
        path = folder / WEIGHTS_FILE
        return [path], read_header(path)
    if (folder / INDEX_FILE).is_file():
        return _read_sharded(folder)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            "the weights are a pickle, which can run code when it is loaded, and are refused",
            file=folder / pickles[0],
            allowed=f"{WEIGHTS_FILE}, or its shards with {INDEX_FILE}",
            hint="where you trust the file, load it and save it again with "
            "model.save_pretrained(folder)",
        )
    raise ModelError(f"the model folder has no {WEIGHTS_FILE}", file=folder)


def _read_sharded(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    index = folder / INDEX_FILE
    try:
        places: dict[str, str] = dict(json.loads(index.read_bytes())["weight_map"])
    except (ValueError, KeyError, TypeError):
        raise _damaged(index, "it is not a JSON object with a weight_map") from None
    tensors: dict[str, Tensor] = {}
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name:
            raise _damaged(index, f"it names a file outside the folder: {name!r}")
        if not (folder / name).is_file():
            raise _damaged(index, f"the shard {name} is missing")
        tensors |= read_header(folder / name)
    absent = sorted(set(places) - set(tensors))
    if absent:
        raise _damaged(index, f"no shard holds {absent[0]!r} ({len(absent)} tensors are absent)")
    return [folder / name for name in (*names, INDEX_FILE)], tensors


def read_header(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one safetensors file after checking that they cover it exactly.

    Raises:
        ModelError: the file is damaged; says what.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            raise _damaged(path, f"it has {size} bytes, fewer than the smallest header")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise _damaged(path, f"its header claims {length:,} bytes of {size:,}")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        spans = sorted((*map(int, entry["data_offsets"]), name) for name, entry in header.items())
        tensors = {name: _tensor(entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(path, "its header is not the JSON of a safetensors file") from None
    end = 0
    for start, stop, name in spans:
        if start != end:
            raise _damaged(path, f"{'a gap' if start > end else 'an overlap'} before {name!r}")
        bits = _BITS[tensors[name].dtype] * math.prod(tensors[name].shape)
        if stop - start != bits // 8:
            raise _damaged(path, f"{name!r} has {stop - start:,} bytes instead of {bits // 8:,}")
        end = stop
    if end != size - 8 - length:
        what = "truncated" if end > size - 8 - length else "too long"
        raise _damaged(path, f"it is {what}: {size:,} bytes instead of {8 + length + end:,}")
    return tensors


def _tensor(entry: dict[str, Any]) -> Tensor:
    shape = tuple(map(int, entry["shape"]))
    if entry["dtype"] not in _BITS or min(shape, default=0) < 0:
        raise ValueError
    return Tensor(entry["dtype"], shape)


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(f"damaged: {what}", file=path, hint="fetch or copy the model again")
