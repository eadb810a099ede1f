"""What follows from a sweep's trials: the front, the recommendation, what mattered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kovar.tuning.report.configuration import Configuration
from kovar.tuning.report.front import front
from kovar.tuning.report.importance import Importance, importance_of
from kovar.tuning.report.price import Price, known_prices
from kovar.tuning.report.recommendation import Recommendation, recommend
from kovar.tuning.report.significance import Rival, compare_configurations
from kovar.tuning.report.sweep_report import SweepReport
from kovar.tuning.report.trial_json import finite

MAX_COMPARED: Final = 500


@dataclass(frozen=True)
class Front:
    """The Pareto front by one price: numbers of configurations, the cheapest first."""

    price: Price
    configurations: tuple[int, ...]


@dataclass(frozen=True)
class Analysis:
    """What a sweep's trials say when they are taken together."""

    fronts: tuple[Front, ...]
    """The first one is by the price that the recommendation goes by."""
    rivals: tuple[Rival, ...]
    recommendation: Recommendation | None
    importance: Importance

    def rival(self, configuration: int) -> Rival | None:
        """Return how a configuration compares with the best."""
        return next((one for one in self.rivals if one.configuration == configuration), None)

    def to_json(self, report: SweepReport) -> dict[str, Any]:
        """Return plain JSON types, as `results.json` holds them beside the report's own."""
        found: dict[str, Any] = finite(
            {
                "configurations": [_facts(one, report) for one in report.configurations],
                "pareto": {one.price.name: list(one.configurations) for one in self.fronts},
                "comparison": [one.to_json() for one in self.rivals],
                "recommendation": self.recommendation.to_json() if self.recommendation else None,
                "importance": self.importance.to_json(),
            }
        )
        return found


def analyze(report: SweepReport, folder: Path) -> Analysis:
    """Draw conclusions from a sweep.

    Args:
        report: its trials.
        folder: of the sweep: the trials' answers lie below it.
    """
    ranked, facts = report.ranked_configurations, report.facts
    prices = known_prices(ranked, objectives=facts.objectives)
    rivals: tuple[Rival, ...] = ()
    if ranked:
        # What ranks so far behind is not as good as the best, and each costs memory.
        rivals_of = ranked[1 : MAX_COMPARED + 1]
        rivals = compare_configurations(ranked[0], rivals_of, facts=facts, folder=folder)
    # Energy is shown, but no budget is written in joules.
    deciding = next((price for price in prices if price.name != "energy"), None)
    return Analysis(
        fronts=tuple(Front(price, _front(ranked, price, report)) for price in prices),
        rivals=rivals,
        recommendation=recommend(ranked, rivals, facts=facts, price=deciding),
        importance=importance_of(report.configurations, facts),
    )


def _front(ranked: list[Configuration], price: Price, report: SweepReport) -> tuple[int, ...]:
    points = []
    for one in ranked:
        paid, quality = price.of(one), one.metric(report.facts.metric)
        if paid is not None and quality is not None:
            points.append((paid.mean, report.facts.sign * quality.mean))
    return tuple(ranked[index].number for index in front(points))


def _facts(configuration: Configuration, report: SweepReport) -> dict[str, Any]:
    names = sorted({name for trial in configuration.finished for name in trial.metrics})
    spreads = {name: configuration.metric(name) for name in names}
    prices = {
        "cost": configuration.cost,
        "wall_seconds": configuration.wall_seconds,
        "energy_joules": configuration.energy_joules,
        "tokens_per_second": configuration.tokens_per_second,
    }
    return {
        "configuration": configuration.number,
        "point": configuration.point,
        "status": configuration.status,
        "trials": [trial.number for trial in configuration.trials],
        "seeds": [trial.seed for trial in configuration.trials],
        "metrics": {name: spread.to_json() for name, spread in spreads.items() if spread},
        **{name: spread.to_json() if spread else None for name, spread in prices.items()},
        "peak_memory_bytes": configuration.peak_memory_bytes,
    }
