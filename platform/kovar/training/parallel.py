"""How the ranks of a run work on one model: what they exchange, and when.

A single rank exchanges nothing and pays nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Parallel:
    """One rank among all; above one rank the default process group must exist.

    Args:
        rank: this process's rank.
        world_size: number of ranks.
        device: where tensors that are exchanged live.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this rank reports and saves."""
        return self.rank == 0

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the module to call in training; its backward pass averages gradients over ranks.

        The last buckets of gradients travel while the first layers still compute.
        """
        if self.world_size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def accumulating(self, model: torch.nn.Module) -> AbstractContextManager[None]:
        """Keep gradients on this rank while the block runs: more micro-batches follow."""
        if self.world_size == 1:
            return nullcontext()
        wrapped: Any = model
        no_sync: AbstractContextManager[None] = wrapped.no_sync()
        return no_sync

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by its sum over the ranks, and return it."""
        if self.world_size > 1:
            import torch.distributed

            torch.distributed.all_reduce(tensor)
        return tensor

    def total(self, number: int) -> int:
        """Return the sum of every rank's number."""
        if self.world_size == 1:
            return number
        import torch

        return int(self.add_up(torch.tensor(number, dtype=torch.int64, device=self.device)))

    def least(self, number: int) -> int:
        """Return the smallest of every rank's number."""
        if self.world_size == 1:
            return number
        import torch
        import torch.distributed

        tensor = torch.tensor(number, dtype=torch.int64, device=self.device)
        torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MIN)
        return int(tensor)

    def from_main(self, number: int) -> int:
        """Return rank 0's number on every rank."""
        if self.world_size == 1:
            return number
        import torch
        import torch.distributed

        tensor = torch.tensor(number, dtype=torch.int64, device=self.device)
        torch.distributed.broadcast(tensor, src=0)
        return int(tensor)

    def text_from_main(self, text: str) -> str:
        """Return rank 0's text on every rank."""
        if self.world_size == 1:
            return text
        import torch.distributed

        told: list[Any] = [text]
        torch.distributed.broadcast_object_list(told, src=0, device=self.device)
        return str(told[0])
