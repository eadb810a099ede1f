"""Models of one process that were made from the same base keep its weights once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kovar.inference.runtime import Runtime
from kovar.inference.torch_runtime import TorchRuntime

if TYPE_CHECKING:
    import torch


def share_weights(runtimes: Sequence[Runtime], *, base: torch.nn.Module | None = None) -> int:
    """Let tensors of torch runtimes that are equal in every number stand in memory once.

    An adapter is merged into its base, so it runs as fast as a whole model, and only the matrices
    that it changes are its own. Nothing may train these models afterwards.

    Args:
        runtimes: loaded versions; those of other libraries are left as they are.
        base: a model that is in memory beside them, and stays as it is.

    Returns:
        Bytes that are no longer needed.
    """
    kept: dict[str, list[torch.Tensor]] = {}
    num_bytes = 0
    for module in [base, *map(_module, runtimes)]:
        for name, tensor in _tensors(module):
            for known in kept.setdefault(name, []):
                if tensor.data_ptr() != known.data_ptr() and _are_equal(tensor, known):
                    tensor.data = known
                    num_bytes += known.nbytes
                    break
            else:
                kept[name].append(tensor.data)
    return num_bytes


def _module(runtime: Runtime) -> torch.nn.Module | None:
    return runtime.module if isinstance(runtime, TorchRuntime) else None


def _tensors(module: torch.nn.Module | None) -> Iterator[tuple[str, torch.Tensor]]:
    if module is not None:
        yield from module.named_parameters()
        yield from module.named_buffers()


def _are_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
