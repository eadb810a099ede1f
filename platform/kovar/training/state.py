"""What a checkpoint holds: taken from the parts of an engine, and put back into them.

Batches, learning rates and dropout are functions of the step, so no position and no generator is
among it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.training.halves import take_low_halves
from kovar.training.optimizer import optimizer_state, restore_optimizer

if TYPE_CHECKING:
    import torch

    from kovar.training.checkpoint import Checkpoint, Part, State
    from kovar.training.ema import Ema
    from kovar.training.halves import Halves
    from kovar.training.judge import Judge
    from kovar.training.skips import Skips
    from kovar.training.step import OptimizerStep


@dataclass(frozen=True)
class Snapshot:
    """One rank's part of a checkpoint, in memory that training does not touch.

    Args:
        step: the step after which it was taken.
        tensors: on the CPU, by file name.
        state: everything else, as JSON types; None on ranks that do not write it.
    """

    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    state: State | None = None

    def write(self, folder: Path) -> Sequence[str]:
        """Write a file for each group of tensors, and `state.json`; return the names.

        Raises:
            OSError: the disk refused.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        for name, tensors in self.tensors.items():
            try:
                save_file(dict(tensors), folder / name)
            except SafetensorError as error:
                raise OSError(f"{name}: {error}") from error
        if self.state is None:
            return list(self.tensors)
        told = json.dumps({"step": self.step, **self.state}, sort_keys=True)
        (folder / "state.json").write_text(told)
        return [*self.tensors, "state.json"]


class TrainingState:
    """Everything that steps change.

    Args:
        model: its trained parameters and its buffers are held.
        parameters: those that are trained, by name.
        optimizer: over `parameters`.
        step: its loss scale is held.
        judge: of evaluations.
        ema: the average of the weights, where there is one.
        skips: of steps.
        halves: of weights that are kept in bf16.
        facts: what else a checkpoint says about the run, as JSON types.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        parameters: Mapping[str, torch.nn.Parameter],
        *,
        optimizer: torch.optim.Optimizer,
        step: OptimizerStep,
        judge: Judge,
        ema: Ema | None,
        skips: Skips,
        halves: Halves | None,
        facts: Mapping[str, Any],
    ) -> None:
        self._model = model
        self._parameters = parameters
        self._optimizer = optimizer
        self._step = step
        self._judge = judge
        self._ema = ema
        self._skips = skips
        self._halves = halves
        # Those that the optimizer moves.
        self._moved = parameters if halves is None else halves.whole
        self._facts = facts
        self._held: dict[str, torch.Tensor] = {}

    def capture(self, step: int) -> Part:
        """Copy everything to memory of its own; training stands still meanwhile.

        The memory is kept and filled again: write a snapshot before the next one is taken.
        """
        moments, numbers = optimizer_state(self._optimizer, self._moved)
        moments |= self._ema.tensors() if self._ema else {}
        moments |= self._halves.tensors() if self._halves else {}
        tensors = {
            "model.safetensors": self._copied("model", self._weights()),
            "optimizer.safetensors": self._copied("optimizer", moments),
        }
        self._wait_for_copies()
        return Snapshot(step, tensors, self._told(numbers))

    def release(self) -> None:
        """Give the memory of snapshots back; the last one is written."""
        self._held.clear()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        import torch

        model, tensors, state = checkpoint.load()
        with torch.no_grad():
            for name, tensor in self._weights().items():
                tensor.copy_(model[name])
        average = {name: tensors.pop(name) for name in list(tensors) if name.startswith("ema/")}
        if self._ema is not None:
            self._ema.restore(average)
        take_low_halves(tensors, self._parameters, self._halves)
        restore_optimizer(self._optimizer, self._moved, tensors, state["optimizer"])
        self._hear(state)

    def _told(self, numbers: Mapping[str, Any]) -> State:
        """Return what is not tensors; `numbers` are those of the optimizer."""
        return {
            **self._facts,
            "scaler": self._step.scaler.state_dict(),
            "optimizer": numbers,
            "judge": self._judge.state(),
            "skips": self._skips.state(),
        }

    def _hear(self, state: State) -> None:
        """Go on from what `_told` returned, but for the optimizer."""
        self._step.scaler.load_state_dict(state["scaler"])
        self._judge.restore(state["judge"])
        self._skips.restore(state["skips"])

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return what training changes, each tensor once: parameters trained, and buffers."""
        return {**self._parameters, **dict(self._model.named_buffers())}

    def _wait_for_copies(self) -> None:
        if any(tensor.device.type == "cuda" for tensor in self._parameters.values()):
            import torch

            torch.cuda.synchronize()

    def _copied(self, group: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        copies = {}
        for name, tensor in tensors.items():
            held = self._held.get(f"{group}/{name}")
            if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
                held = torch.empty(
                    tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda"
                )
                self._held[f"{group}/{name}"] = held
            held.copy_(tensor.detach(), non_blocking=True)
            copies[name] = held
        return copies
