"""Which batch and which learning rate every step has: pure, known before the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from kovar.config import Config, name_as_kind
from kovar.data import Batch, make_batches

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


def plan_steps(
    lengths: npt.NDArray[np.int32],
    *,
    fingerprint: str,
    max_length: int,
    settings: TrainingSettings,
) -> list[PlannedStep]:
    """List every step of a run, the same for any number of workers.

    Args:
        lengths: tokens per training row.
        fingerprint: the tokenized data set's.
        max_length: longest row in tokens.
        settings: epochs, budget, schedule and seed.
    """
    planned = [
        (epoch, batch, index == len(batches) - 1)
        for epoch in range(settings.epochs)
        for batches in [
            make_batches(
                lengths,
                fingerprint=fingerprint,
                seed=settings.seed,
                epoch=epoch,
                max_tokens=settings.max_tokens,
                max_length=max_length,
            )
        ]
        for index, batch in enumerate(batches)
    ][: settings.max_steps]
    total = len(planned)
    return [
        PlannedStep(number, epoch, batch, learning_rate(number, total, settings), ends_epoch)
        for number, (epoch, batch, ends_epoch) in enumerate(planned, start=1)
    ]


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
