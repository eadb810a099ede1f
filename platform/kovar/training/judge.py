"""What follows from evaluations: the best step, a lower learning rate, an early stop.

All of it is a small state that checkpoints hold. Every rank judges the same numbers, so all ranks
come to the same verdict without asking each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from kovar.config import Config
from kovar.training.schedule import Plateau
from kovar.training.tasks import Direction, better

if TYPE_CHECKING:
    from kovar.training.spec import TrainingSettings
    from kovar.training.tasks import Task


class EarlyStopping(Config):
    """Ends a run whose evaluations stop getting better."""

    patience: int = Field(default=3, ge=1, description="evaluations without improvement until then")
    min_delta: float = Field(default=0.0, ge=0, description="smallest change that is improvement")


@dataclass
class Patience:
    """Counts values that do not improve on the last one that did."""

    direction: Direction
    limit: int
    min_delta: float
    reference: float | None = None
    num_stale: int = 0

    def is_over(self, value: float) -> bool:
        """Take the next value; return whether `limit` values in a row were no improvement."""
        if self.reference is None or better(
            value, self.reference, direction=self.direction, by=self.min_delta
        ):
            self.reference, self.num_stale = value, 0
        else:
            self.num_stale += 1
        return self.num_stale >= self.limit


class Judge:
    """Decides from one metric of each evaluation.

    Args:
        settings: which metric, and what follows from it.
        task: its metrics, and which way each is better.

    Attributes:
        metric: the metric's name.
        best_step: step of the best evaluation; None before the first.
        rate_scale: what planned learning rates are multiplied by.
        stops: whether the run ends here.
    """

    def __init__(self, settings: TrainingSettings, task: Task) -> None:
        self.metric = settings.metric or task.metric
        self._direction = task.metrics[self.metric]
        self._best: float | None = None
        self.best_step: int | None = None
        self.rate_scale = 1.0
        self.stops = False
        stopping, plateau = settings.early_stopping, settings.schedule
        self._stopping = self._patience(stopping) if stopping else None
        self._plateau = self._patience(plateau) if isinstance(plateau, Plateau) else None
        self._factor = plateau.factor if isinstance(plateau, Plateau) else 1.0

    def _patience(self, settings: EarlyStopping | Plateau) -> Patience:
        return Patience(self._direction, settings.patience, settings.min_delta)

    def hear(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Take an evaluation; return whether it is the best so far."""
        value = metrics[self.metric]
        if self._stopping is not None:
            self.stops = self._stopping.is_over(value)
        if self._plateau is not None and self._plateau.is_over(value):
            self.rate_scale *= self._factor
            self._plateau.num_stale = 0
        if self._best is None or better(value, self._best, direction=self._direction):
            self._best, self.best_step = value, step
            return True
        return False

    def state(self) -> dict[str, Any]:
        """Return everything to go on from, as JSON types."""
        return {
            "best": self._best,
            "best_step": self.best_step,
            "rate_scale": self.rate_scale,
            **{
                name: [patience.reference, patience.num_stale]
                for name, patience in self._patiences().items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._best, self.best_step = state["best"], state["best_step"]
        self.rate_scale = state["rate_scale"]
        for name, patience in self._patiences().items():
            patience.reference, patience.num_stale = state[name]

    def _patiences(self) -> dict[str, Patience]:
        found = {"stopping": self._stopping, "plateau": self._plateau}
        return {name: patience for name, patience in found.items() if patience is not None}
