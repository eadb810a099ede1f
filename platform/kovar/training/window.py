"""What happened since the last report: sums that stay on the device until somebody looks."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from kovar.errors import NonFiniteError

if TYPE_CHECKING:
    from kovar.training.feed import StepBatch
    from kovar.training.parallel import Parallel
    from kovar.training.schedule import PlannedStep
    from kovar.training.step import OptimizerStep, StepOutcome

SMALLEST_SCALE = 1.0
"""An fp16 loss scale below it means that gradients overflow at every step."""


class Window:
    """The steps since the last report; begin it after evaluations and checkpoints.

    Args:
        parallel: adds up the loss over the ranks.
    """

    def __init__(self, parallel: Parallel) -> None:
        import torch

        self._parallel = parallel
        self._loss = torch.zeros((), device=parallel.device)
        self._gradient_norm = torch.zeros((), device=parallel.device)
        self._targets = self._tokens = self._padded = 0
        self._since = time.perf_counter()

    def add(self, batch: StepBatch, outcome: StepOutcome) -> None:
        """Count one step."""
        import torch

        self._loss += outcome.loss
        self._gradient_norm = torch.maximum(self._gradient_norm, outcome.gradient_norm)
        self._targets += outcome.num_targets
        self._tokens += batch.num_tokens
        self._padded += batch.num_padded

    def facts(self, planned: PlannedStep, step: OptimizerStep) -> dict[str, Any]:
        """Return the fields of a `step` event; every rank must call it.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite, or the loss scale collapsed.
        """
        loss = float(self._parallel.add_up(self._loss)) / max(1, self._targets)
        norm, scale = float(self._gradient_norm), float(step.scaler.get_scale())
        if not (math.isfinite(loss) and math.isfinite(norm) and scale >= SMALLEST_SCALE):
            raise NonFiniteError(
                f"step {planned.step}: loss {loss}, gradient norm {norm}, loss scale {scale}",
                hint="lower training.learning_rate, or set precision: fp32",
            )
        return {
            "step": planned.step,
            "epoch": planned.epoch,
            "loss": loss,
            "learning_rate": step.learning_rate,
            "tokens": self._tokens,
            "targets": self._targets,
            "seconds": time.perf_counter() - self._since,
            "padding": 1 - self._tokens / self._padded,
            "gradient_norm": norm,
        }
