"""What a checkpoint holds where every rank has its part of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kovar.training.optimizer import optimizer_state, restore_optimizer
from kovar.training.parallel.parts import Shards, held, read_parts, stored_shapes
from kovar.training.state import TrainingState

if TYPE_CHECKING:
    import torch

    from kovar.training.checkpoint import Checkpoint


class ShardedState(TrainingState):
    """Every rank captures its own parts; each finds its own when it goes on, on any mesh.

    Args:
        rank: this process's rank.
        arguments: those of `TrainingState`.
    """

    def __init__(self, *arguments: Any, rank: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._rank = rank

    def capture(self, step: int) -> Shards:
        """Copy this rank's parts to memory of their own; training stands still meanwhile."""
        moments, numbers = optimizer_state(self._optimizer, self._parameters)
        everything = {**self._weights(), **moments, **(self._ema.tensors() if self._ema else {})}
        parts = {name: held(tensor, rank=self._rank) for name, tensor in everything.items()}
        own = {name: part for name, part in parts.items() if part is not None}
        tensors = self._copied("parts", {name: part for name, (part, _) in own.items()})
        self._wait_for_copies()
        offsets = {name: offsets for name, (_, offsets) in own.items()}
        state = self._told(numbers) if self._rank == 0 else None
        return Shards(step, self._rank, tensors, offsets, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; every rank must call it."""
        state = checkpoint.state()
        targets = {name: tensor.detach() for name, tensor in self._weights().items()}
        moments = {
            name: self._like(name.partition("/")[2], *stored)
            for name, stored in stored_shapes(checkpoint.folder).items()
            if name not in targets
        }
        read_parts(checkpoint.folder, targets | moments)
        average = {name: moments.pop(name) for name in list(moments) if name.startswith("ema/")}
        if self._ema is not None:
            self._ema.restore(average)
        restore_optimizer(self._optimizer, self._parameters, moments, state["optimizer"])
        self._hear(state)

    def _like(self, parameter: str, shape: Any, dtype: torch.dtype) -> torch.Tensor:
        """Make room for what belongs to a parameter: cut as it is, if it has the same shape."""
        import torch

        whole = self._parameters[parameter].detach()
        if whole.shape == torch.Size(shape):
            return torch.empty_like(whole, dtype=dtype)
        return torch.empty(shape, dtype=dtype)
