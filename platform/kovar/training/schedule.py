"""Which batch and which learning rate every step has: pure, known before the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kovar.data import Batch, make_batches

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.training.spec import TrainingSettings


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

    The decay ends at zero one step after the last, so that every step moves the weights.
    """
    warmup = round(settings.warmup * num_steps)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    progress = (step - 1 - warmup) / max(1, num_steps - warmup)
    if settings.schedule == "constant":
        return settings.learning_rate
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.learning_rate * (1 - progress)
