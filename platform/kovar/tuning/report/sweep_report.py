"""What a sweep found: its trials, ranked."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, get_args

from kovar.tuning.record import TrialRecord, TrialStatus
from kovar.tuning.report.configuration import Configuration, configurations_of
from kovar.tuning.report.facts import SweepFacts
from kovar.tuning.report.trial_json import trial_to_json

if TYPE_CHECKING:
    from rich.table import Table

STATUSES: Final[tuple[TrialStatus, ...]] = get_args(TrialStatus)
FORMAT: Final = 1


@dataclass(frozen=True)
class SweepReport:
    """A sweep that has ended, or as far as it is."""

    facts: SweepFacts
    trials: tuple[TrialRecord, ...]

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """Finished trials, then stopped ones, each the best first; then the others by number.

        Equal ones come in the order of their numbers.
        """
        order = {"finished": 0, "stopped": 1}
        return sorted(
            self.trials,
            key=lambda t: (order.get(t.status, 2), -self.merit(t) if t.status in order else 0.0,
                           t.number),
        )  # fmt: skip

    def merit(self, trial: TrialRecord) -> float:
        """Return a number that is larger for a better trial; −∞ where the metric is unknown."""
        value = trial.metrics.get(self.facts.metric)
        if value is None or not math.isfinite(value):
            return -math.inf
        return self.facts.sign * value

    @cached_property
    def configurations(self) -> tuple[Configuration, ...]:
        """The trials by configuration."""
        return configurations_of(self.trials)

    @cached_property
    def ranked_configurations(self) -> list[Configuration]:
        """Those with a finished trial, the best mean first; those with every seed before others.

        A configuration that lost a seed is judged by the seeds that went well, so it ranks behind.
        """
        name, sign = self.facts.metric, self.facts.sign
        known = [(c, spread) for c in self.configurations if (spread := c.metric(name)) is not None]
        known.sort(key=lambda one: (not one[0].is_complete, -sign * one[1].mean, one[0].number))
        return [configuration for configuration, _ in known]

    @property
    def best_configuration(self) -> Configuration | None:
        """The one with the best mean over its seeds."""
        return next(iter(self.ranked_configurations), None)

    @cached_property
    def best(self) -> TrialRecord | None:
        """The best finished trial of the best configuration; None where no trial finished.

        So a lucky seed of a configuration that is worse on average never wins.
        """
        chosen = self.best_configuration
        return None if chosen is None else max(chosen.finished, key=self.merit)

    @property
    def counts(self) -> dict[TrialStatus, int]:
        """Status → number of trials, for those that occur."""
        found = Counter(trial.status for trial in self.trials)
        return {status: found[status] for status in STATUSES if found[status]}

    @property
    def num_failed(self) -> int:
        """Trials that crashed more often than allowed."""
        return sum(trial.status == "failed" for trial in self.trials)

    @property
    def cost(self) -> float | None:
        """Of all trials that started, finished or not; None where a price is not declared."""
        costs = [trial.cost for trial in self.trials if trial.stays or trial.wall_seconds]
        known = [cost for cost in costs if cost is not None]
        return math.fsum(known) if costs and len(known) == len(costs) else None

    @property
    def energy_joules(self) -> float | None:
        """Of all trials that started; None where a chip does not tell."""
        each = [trial.energy_joules for trial in self.trials if trial.stays or trial.wall_seconds]
        known = [joules for joules in each if joules is not None]
        return math.fsum(known) if each and len(known) == len(each) else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; `results.json` holds them, and the analysis."""
        best = self.best
        return {
            "format": FORMAT,
            "sweep": self.facts.to_json(),
            "counts": self.counts,
            "num_failed": self.num_failed,
            "cost": self.cost,
            "energy_joules": self.energy_joules,
            "best": best.number if best else None,
            "trials": [
                trial_to_json(trial) | {"rank": rank}
                for rank, trial in enumerate(self.ranked, start=1)
            ],
        }

    def table(self) -> Table:
        """Draw the ranked trials for a terminal."""
        from kovar.tuning.report.table import trial_table

        return trial_table(self)
