"""The weights that a trial has trained, in one safetensors file, and back into a model.

Frozen weights are not among them: they are those of the base.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kovar.errors import DamagedArtifactError

if TYPE_CHECKING:
    import torch

WEIGHTS_FILE: Final = "weights.safetensors"

_DTYPES: Final = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def write_weights(tensors: Mapping[str, torch.Tensor], path: Path | None) -> str:
    """Write tensors one after the other, and return the SHA-256 of what was written.

    No copy of all of them is made. The same tensors give the same bytes.

    Args:
        tensors: by name, on any device.
        path: of the file; None computes the digest alone.
    """
    digest = hashlib.sha256()
    if path is None:
        for part in _parts(tensors):
            digest.update(part)
        return digest.hexdigest()
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        for part in _parts(tensors):
            digest.update(part)
            file.write(part)
    partial.replace(path)
    return digest.hexdigest()


def _parts(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the parts of the file, see kovar.models.weights for the format."""
    import torch

    header, end = {}, 0
    for name in sorted(tensors):
        tensor = tensors[name]
        header[name] = {
            "dtype": _DTYPES[str(tensor.dtype).removeprefix("torch.")],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in sorted(tensors):
        whole = tensors[name].detach().cpu().contiguous()
        yield whole.reshape(-1).view(torch.uint8).numpy().data


def fill_weights(model: torch.nn.Module, path: Path, *, digest: str) -> None:
    """Put a trial's weights into a model of the same spec.

    Args:
        model: as it was before the trial trained it.
        path: the trial's file.
        digest: what the trial's end says of it.

    Raises:
        DamagedArtifactError: the file is not what the trial wrote, or belongs to another model.
    """
    import torch
    from safetensors.torch import load_file

    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise DamagedArtifactError(f"{path.name} of {path.parent.name} was altered since its trial")
    targets = dict(model.named_parameters()) | dict(model.named_buffers())
    tensors = load_file(path)
    if missing := sorted(tensors.keys() - targets.keys()):
        raise DamagedArtifactError(f"{path.name} holds {missing[0]}, which the model does not have")
    with torch.no_grad():
        for name, tensor in tensors.items():
            target = targets[name]
            # Weights that were trained in bf16 stay so.
            target.data = tensor.to(target.device)
