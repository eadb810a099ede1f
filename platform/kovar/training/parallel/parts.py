"""One rank's part of a checkpoint, in the safetensors layout of torch.distributed.checkpoint.

Each rank writes the parts of tensors that it holds, and where in the whole they belong, into a file
of its own; no rank waits for another. torch.distributed.checkpoint reads them back, on as many
ranks as there were or on others, and without any.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.training.parallel.tensors import local

if TYPE_CHECKING:
    import torch

_OFFSETS: Final = "DCP_SHARDING_INFO"
"""Where torch's reader looks for the offsets of a file's tensors."""


@dataclass(frozen=True)
class Shards:
    """One rank's part of a checkpoint, in memory that training does not touch.

    Args:
        step: the step after which it was taken.
        rank: whose it is.
        tensors: on the CPU, by name.
        offsets: where each begins in its whole.
        state: everything else, as JSON types; None on ranks that do not write it.
    """

    step: int
    rank: int
    tensors: Mapping[str, torch.Tensor]
    offsets: Mapping[str, Sequence[int]]
    state: Mapping[str, Any] | None

    def write(self, folder: Path) -> Sequence[str]:
        """Write the tensors and, where there is one, the state; return the names of the files."""
        from safetensors.torch import save_file

        name = f"part-{self.rank:05d}.safetensors"
        told = {key: {"saved_offsets": list(self.offsets[key])} for key in self.tensors}
        save_file(dict(self.tensors), folder / name, metadata={_OFFSETS: json.dumps(told)})
        if self.state is None:
            return [name]
        whole = json.dumps({"step": self.step, **self.state}, sort_keys=True)
        (folder / "state.json").write_text(whole)
        return [name, "state.json"]


def held(tensor: torch.Tensor, *, rank: int) -> tuple[torch.Tensor, Sequence[int]] | None:
    """Return the part of a tensor that a rank writes, and its offsets; None if another one does.

    What several ranks hold alike is written by the lowest of them.
    """
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return (tensor, [0] * tensor.ndim) if rank == 0 else None
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sharded: Any = tensor
    first = all(
        place == 0 or not placement.is_replicate()
        for place, placement in zip(mesh.get_coordinate(), sharded.placements, strict=True)
    )
    part = local(tensor)
    if not first or part.numel() == 0:
        return None
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, sharded.placements)
    return part, offsets


def stored_shapes(folder: Path) -> dict[str, tuple[Sequence[int], torch.dtype]]:
    """Return shape and type of each whole tensor of a checkpoint."""
    found = _reader(folder).read_metadata().state_dict_metadata
    return {name: (facts.size, facts.properties.dtype) for name, facts in found.items()}


def read_parts(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill tensors, each with its part, from a checkpoint of however many parts.

    Each rank reads what it needs by itself.
    """
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(dict(tensors), storage_reader=_reader(folder), no_dist=True)


def _reader(folder: Path) -> Any:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    return HuggingFaceStorageReader(os.fspath(folder))
