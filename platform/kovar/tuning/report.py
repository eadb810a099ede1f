"""What a sweep found: the trials, ranked, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

from kovar.tuning.points import Point
from kovar.tuning.spec import SweepSpec


@dataclass(frozen=True)
class TrialOutcome:
    """How one trial ended."""

    number: int
    point: Point
    status: Literal["finished", "failed"]
    metrics: dict[str, float]
    precision: str | None
    """As resolved on the trial's chip."""
    seconds: float
    """Of training steps."""
    error: str | None = None


@dataclass(frozen=True)
class SweepReport:
    """A finished sweep."""

    spec: SweepSpec
    outcomes: tuple[TrialOutcome, ...]

    @property
    def ranked(self) -> list[TrialOutcome]:
        """Best first; equal ones in the order of their numbers; failed ones last."""
        sign = -1 if self.spec.mode == "max" else 1
        return sorted(
            self.outcomes,
            key=lambda outcome: (
                outcome.status != "finished",
                sign * outcome.metrics.get(self.spec.metric, 0.0),
                outcome.number,
            ),
        )

    @property
    def best(self) -> TrialOutcome | None:
        """The best finished trial."""
        first = self.ranked[0]
        return first if first.status == "finished" else None

    @property
    def num_failed(self) -> int:
        """Trials without a result."""
        return sum(outcome.status == "failed" for outcome in self.outcomes)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as written to `results.json`."""
        return {
            "sweep": self.spec.name,
            "metric": self.spec.metric,
            "mode": self.spec.mode,
            "num_failed": self.num_failed,
            "trials": [vars(outcome) | {"rank": rank} for rank, outcome in self._numbered()],
        }

    def _numbered(self) -> list[tuple[int, TrialOutcome]]:
        return list(enumerate(self.ranked, start=1))

    def table(self) -> Table:
        """Draw the ranked trials."""
        table = Table(title=f"{self.spec.name}: {len(self.outcomes)} trials by {self.spec.metric}")
        table.add_column("rank", justify="right")
        table.add_column("trial")
        for path in self.spec.search:
            table.add_column(path.removeprefix("training."), justify="right")
        for column in ("ran as", "accuracy", "macro F1", "seconds"):
            table.add_column(column, justify="right")
        table.add_column("status")
        for rank, outcome in self._numbered():
            scores = [outcome.metrics.get(name) for name in ("accuracy", "macro_f1")]
            table.add_row(
                str(rank) if outcome.status == "finished" else "–",
                str(outcome.number),
                *[_shown(outcome.point[path]) for path in self.spec.search],
                outcome.precision or "–",
                *["–" if score is None else f"{score:.4f}" for score in scores],
                f"{outcome.seconds:.1f}",
                outcome.status if outcome.error is None else f"failed: {outcome.error}",
                style="bold green" if outcome == self.best else None,
            )
        return table


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
