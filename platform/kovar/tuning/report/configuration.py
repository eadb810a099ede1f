"""Trials that differ in their seed alone, taken together: mean ± deviation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kovar.tuning.points import Point
from kovar.tuning.record import TrialRecord, TrialStatus

SEVERITY: tuple[TrialStatus, ...] = (
    "failed", "diverged", "unfinished", "excluded", "stopped", "finished",
)  # fmt: skip
"""The status of several trials is the first of these that one of them has."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Several values of one quantity.

    Args:
        mean: of the values.
        deviation: sample standard deviation (n - 1); None for a single value.
        num: how many values there are.
    """

    mean: float
    deviation: float | None
    num: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Summarize; None unless every value is known and finite, and there is one."""
        known = list(values)
        if not known or any(one is None or not math.isfinite(one) for one in known):
            return None
        numbers = [float(one) for one in known if one is not None]
        deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
        return cls(statistics.fmean(numbers), deviation, len(numbers))

    def shown(self, digits: str = ".4f") -> str:
        """Write mean ± deviation."""
        if self.deviation is None:
            return f"{self.mean:{digits}}"
        return f"{self.mean:{digits}} ± {self.deviation:{digits}}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"mean": self.mean, "deviation": self.deviation, "num": self.num}


@dataclass(frozen=True)
class Configuration:
    """One point of a sweep with all of its seeds.

    Args:
        number: counts from 1.
        trials: in the order of their numbers; at least one.
    """

    number: int
    trials: tuple[TrialRecord, ...]

    @property
    def point(self) -> Point:
        """Dotted path → value."""
        return self.trials[0].point

    @cached_property
    def finished(self) -> tuple[TrialRecord, ...]:
        """The trials that trained to their end."""
        return tuple(trial for trial in self.trials if trial.status == "finished")

    @property
    def is_complete(self) -> bool:
        """Whether every seed trained to its end."""
        return len(self.finished) == len(self.trials)

    @property
    def status(self) -> TrialStatus:
        """The worst status of its trials."""
        return min((trial.status for trial in self.trials), key=SEVERITY.index)

    def metric(self, name: str) -> Spread | None:
        """Return a metric over the finished trials; None where one lacks it."""
        return Spread.of(trial.metrics.get(name) for trial in self.finished)

    @cached_property
    def cost(self) -> Spread | None:
        """What one trial cost; None where a price is not declared."""
        return Spread.of(trial.cost for trial in self.finished)

    @cached_property
    def wall_seconds(self) -> Spread | None:
        """From the start of a trial to its end."""
        return Spread.of(trial.wall_seconds for trial in self.finished)

    @cached_property
    def energy_joules(self) -> Spread | None:
        """Of one trial; None where a chip does not tell."""
        return Spread.of(trial.energy_joules for trial in self.finished)

    @cached_property
    def tokens_per_second(self) -> Spread | None:
        """Speed of training."""
        return Spread.of(trial.tokens_per_second for trial in self.finished)

    @cached_property
    def peak_memory_bytes(self) -> int | None:
        """The largest peak of its trials."""
        known = [t.peak_memory_bytes for t in self.trials if t.peak_memory_bytes is not None]
        return max(known) if known else None

    @property
    def where(self) -> str:
        """What its trials ran on: node types, or chips where no types are declared."""
        stays = [stay for trial in self.trials for stay in trial.stays]
        return ", ".join(sorted({stay.node_type or stay.chip for stay in stays}))

    @property
    def precision(self) -> str | None:
        """As resolved on its chips; None if it never started."""
        known = {trial.precision for trial in self.trials if trial.precision}
        return ", ".join(sorted(known)) or None


def configurations_of(trials: Sequence[TrialRecord]) -> tuple[Configuration, ...]:
    """Group trials by their configuration, in the order of its number."""
    groups: dict[int, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        groups.setdefault(trial.configuration, []).append(trial)
    return tuple(Configuration(number, tuple(groups[number])) for number in sorted(groups))
