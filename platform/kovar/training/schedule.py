"""Which batch and which learning rate every step has: pure, known before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, overload

from pydantic import BeforeValidator, Field

from kovar.config import Config, name_as_kind
from kovar.data import Batch, EpochBatches, cut_rows, make_batches

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.training.spec import TrainingSettings


class Linear(Config):
    """Falls in equal steps to zero."""

    kind: Literal["linear"] = Field(default="linear", description="names this schedule")


class Cosine(Config):
    """Falls along half a cosine wave to zero."""

    kind: Literal["cosine"] = Field(default="cosine", description="names this schedule")


class CosineRestarts(Config):
    """Falls along half a cosine wave, again and again from the peak (arXiv 1608.03983)."""

    kind: Literal["cosine_restarts"] = Field(
        default="cosine_restarts", description="names this schedule"
    )
    num_cycles: int = Field(default=2, ge=1, description="waves, each as long as the others")


class Constant(Config):
    """Stays at the peak."""

    kind: Literal["constant"] = Field(default="constant", description="names this schedule")


class Plateau(Config):
    """Stays at the peak until evaluations stop getting better; then falls by a factor."""

    kind: Literal["plateau"] = Field(default="plateau", description="names this schedule")
    factor: float = Field(default=0.5, gt=0, lt=1, description="what the rate is multiplied by")
    patience: int = Field(default=2, ge=1, description="evaluations without improvement until then")
    min_delta: float = Field(default=0.0, ge=0, description="smallest change that is improvement")


ScheduleSettings = Annotated[
    Annotated[Linear | Cosine | CosineRestarts | Constant | Plateau, Field(discriminator="kind")],
    BeforeValidator(name_as_kind),
]


@dataclass(frozen=True)
class PlannedStep:
    """One optimizer step: `step` counts from 1, `epoch` from 0."""

    step: int
    epoch: int
    batch: Batch
    learning_rate: float
    ends_epoch: bool


class PlannedSteps(Sequence[PlannedStep]):
    """Every step of a run, each made when it is asked for; slices are plans of some of them.

    Only the rows of the epoch that was asked for last are in order in memory, so a plan of many
    epochs of ten million rows takes no more than one of them.

    Args:
        epoch_batches: forms the batches of an epoch, as many for each.
        per_epoch: how many.
        settings: epochs, schedule and seed.
    """

    def __init__(
        self,
        epoch_batches: Callable[[int], EpochBatches],
        *,
        per_epoch: int,
        settings: TrainingSettings,
    ) -> None:
        self._batches = lru_cache(maxsize=1)(epoch_batches)
        self._per_epoch = per_epoch
        self._settings = settings
        num_steps = settings.epochs * per_epoch
        self._numbers = range(num_steps)[: settings.max_steps]
        self._total = len(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> PlannedStep: ...
    @overload
    def __getitem__(self, index: slice) -> PlannedSteps: ...
    def __getitem__(self, index: int | slice) -> PlannedStep | PlannedSteps:
        if isinstance(index, slice):
            part = copy(self)
            part._numbers = self._numbers[index]
            return part
        number = self._numbers[index]
        epoch, local = divmod(number, self._per_epoch)
        return PlannedStep(
            number + 1,
            epoch,
            self._batches(epoch)[local],
            learning_rate(number + 1, self._total, self._settings),
            ends_epoch=local == self._per_epoch - 1,
        )


def plan_steps(
    lengths: npt.NDArray[np.int32],
    *,
    fingerprint: str,
    max_length: int,
    settings: TrainingSettings,
) -> PlannedSteps:
    """List every step of a run, the same for any number of workers.

    Args:
        lengths: tokens per training row.
        fingerprint: the tokenized data set's.
        max_length: longest row in tokens.
        settings: epochs, budget, schedule and seed.

    Raises:
        ValueError: a row is empty, longer than `max_length`, or does not fit into the budget.
    """
    sizes = {"max_tokens": settings.max_tokens, "max_length": max_length}
    # Which rows share a batch differs between epochs; how many batches there are does not.
    per_epoch = len(cut_rows(lengths, **sizes))

    def epoch_batches(epoch: int) -> EpochBatches:
        return make_batches(
            lengths, fingerprint=fingerprint, seed=settings.seed, epoch=epoch, **sizes
        )

    return PlannedSteps(epoch_batches, per_epoch=per_epoch, settings=settings)


def learning_rate(step: int, num_steps: int, settings: TrainingSettings) -> float:
    """Return the learning rate of a step (from 1): linear warm-up to the peak, then the decay.

    The decay ends at zero one step after the last, so that every step moves the weights. A plateau
    lowers what is planned here when the evaluations say so (judge.py).
    """
    warmup = num_warmup_steps(num_steps, settings)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    progress = (step - 1 - warmup) / max(1, num_steps - warmup)
    match settings.schedule:
        case Constant() | Plateau():
            return settings.learning_rate
        case Cosine():
            return settings.learning_rate * _half_wave(progress)
        case CosineRestarts(num_cycles=cycles):
            return settings.learning_rate * _half_wave(progress * cycles % 1.0)
        case Linear():
            return settings.learning_rate * (1 - progress)


def num_warmup_steps(num_steps: int, settings: TrainingSettings) -> int:
    """Return how many steps warm up: a whole number is one of steps, a fraction a share."""
    warmup = settings.warmup
    return warmup if isinstance(warmup, int) else round(warmup * num_steps)


def _half_wave(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
