"""What happened since the last report: sums that stay on the device until somebody looks."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from kovar.errors import NonFiniteError

if TYPE_CHECKING:
    import torch

    from kovar.training.feed import StepBatch
    from kovar.training.parallel import Parallel
    from kovar.training.schedule import PlannedStep
    from kovar.training.skips import Skips
    from kovar.training.step import OptimizerStep, StepOutcome

SMALLEST_SCALE = 1.0
"""An fp16 loss scale below it means that gradients overflow at every step."""


class Window:
    """The steps since the last report; begin it after evaluations and checkpoints.

    Args:
        parallel: adds up the loss over the ranks.
        skips: hears of the steps that changed no weight.

    Attributes:
        skipped: the steps that were the fault of their batches; known once `facts` was called.
    """

    def __init__(self, parallel: Parallel, skips: Skips) -> None:
        import torch

        self._parallel = parallel
        self._skips = skips
        self._loss = torch.zeros((), device=parallel.device)
        self._gradient_norm = torch.zeros((), device=parallel.device)
        self._steps: list[int] = []
        self._targets: list[int | torch.Tensor] = []
        self._changed: list[torch.Tensor] = []
        self._num_targets = self._tokens = self._padded = 0
        self._since = time.perf_counter()
        self.skipped: tuple[int, ...] = ()

    def add(self, batch: StepBatch, outcome: StepOutcome) -> None:
        """Count one step; the loss of one that was skipped is left out."""
        import torch

        # A comparison and not a product: nothing times NaN is NaN.
        self._loss += torch.where(outcome.changed, outcome.loss, 0.0)
        norm = torch.where(outcome.changed, outcome.gradient_norm, 0.0)
        self._gradient_norm = torch.maximum(self._gradient_norm, norm)
        self._steps.append(batch.planned.step)
        self._targets.append(outcome.num_targets)
        self._changed.append(outcome.changed)
        self._tokens += batch.num_tokens
        self._padded += batch.num_padded

    def leave_out(self, seconds: float) -> None:
        """Take seconds in which no step was under way out of the time of these steps."""
        self._since += seconds

    def facts(self, planned: PlannedStep, step: OptimizerStep) -> dict[str, Any] | None:
        """Return the fields of a `step` event; every rank must call it.

        Returns:
            None when no step has changed weights since the last report.

        Raises:
            NonFiniteError: the loss is NaN or infinite, too many steps were skipped, or the loss
                scale collapsed.
        """
        self._count()
        loss, norm = float(self._parallel.add_up(self._loss.clone())), float(self._gradient_norm)
        has_moved = self._num_targets > 0
        loss = loss / self._num_targets if has_moved else math.nan
        scale = float(step.scaler.get_scale())
        broken = has_moved and not (math.isfinite(loss) and math.isfinite(norm))
        if broken or self._skips.excess or scale < SMALLEST_SCALE:
            why = self._skips.excess
            raise NonFiniteError(
                f"step {planned.step}: loss {loss}, gradient norm {norm if has_moved else math.nan}"
                f", loss scale {scale}" + (f"; not finite in {why}" if why else ""),
                hint="lower training.learning_rate, or set precision: fp32",
                step=planned.step,
            )
        if not has_moved:
            return None
        return {
            "step": planned.step,
            "epoch": planned.epoch,
            "loss": loss,
            "learning_rate": step.learning_rate,
            "tokens": self._tokens,
            "targets": self._num_targets,
            "seconds": time.perf_counter() - self._since,
            "padding": 1 - self._tokens / self._padded,
            "gradient_norm": norm,
        }

    def _count(self) -> None:
        """Look once at which steps changed weights, and leave the targets of others out."""
        import torch

        changed = torch.stack(self._changed).tolist() if self._changed else []
        self.skipped = self._skips.hear(list(zip(self._steps, changed, strict=True)))
        heard = zip(self._targets, changed, strict=True)
        self._num_targets += sum(int(number) for number, one in heard if one)
        for told in (self._steps, self._targets, self._changed):
            told.clear()
