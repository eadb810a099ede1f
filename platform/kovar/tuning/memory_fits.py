"""The memory of trials, estimated once for all that need the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kovar.training import FineTuneSpec
from kovar.training.fit import MemoryFit, fit_memory
from kovar.training.plan import RunPlan
from kovar.training.snapshot_plan import SnapshotPlan

WITHOUT_WEIGHT: Final = frozenset(
    {
        "epochs", "max_steps", "max_tokens", "warmup", "seed", "metric", "keep_best", "schedule",
        "early_stopping", "evaluate_every", "checkpoint_every", "keep_checkpoints",
    }
)  # fmt: skip
"""Settings of training on which memory does not depend, and the tokens, with which it grows."""


@dataclass(frozen=True)
class MemoryFits:
    """Estimates of a sweep's trials: an estimate takes 10 ms, and a sweep has thousands."""

    known: dict[str, dict[int, MemoryFit | None]] = field(default_factory=dict)

    def of(self, spec: FineTuneSpec, run: RunPlan, config: Mapping[str, Any]) -> MemoryFit | None:
        """Estimate the memory of a trial, at most that of a like one with more tokens that fits.

        Returns:
            None where that cannot be told.
        """
        estimates = self.known.setdefault(_key(spec, run), {})
        tokens = spec.training.max_tokens
        for more, fit in estimates.items():
            if more == tokens or fit is None or (more > tokens and fit.fits):
                return fit
        estimates[tokens] = fit_memory(spec, run, config)
        return estimates[tokens]


def _key(spec: FineTuneSpec, run: RunPlan) -> str:
    """Return what trials that need the same memory, but for their tokens, have in common."""
    fields = spec.model_dump(
        mode="json",
        include={"task", "model", "method", "data", "training", "parallelism", "resources"},
    )
    settings = fields["training"]
    fields["training"] = {k: v for k, v in settings.items() if k not in WITHOUT_WEIGHT}
    # Only a CPU's snapshots are in the memory that its steps take.
    period = SnapshotPlan(settings["checkpoint_every"], "cpu").period
    fields["saves"] = settings["max_steps"] is None or settings["max_steps"] > period
    room = None if run.room is None else run.room.size_bytes
    return json.dumps([_without_amounts(fields), run.precision.precision, room], sort_keys=True)


def _without_amounts(value: Any) -> Any:
    """Keep of fractions only whether they are 0: a dropout of any probability weighs alike."""
    match value:
        case float():
            return value != 0
        case dict():
            return {name: _without_amounts(one) for name, one in value.items()}
        case list():
            return [_without_amounts(one) for one in value]
        case _:
            return value
