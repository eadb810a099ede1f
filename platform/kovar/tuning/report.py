"""What a sweep found: the trials, ranked, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

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
        return sorted(
            self.outcomes,
            key=lambda outcome: (
                outcome.status != "finished",
                -outcome.metrics.get(self.spec.metric, 0.0),
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
        shows_precision = "precision" not in self.spec.search
        table.add_column("rank", justify="right")
        table.add_column("trial", justify="right")
        for path in self.spec.search:
            table.add_column(path.removeprefix("training."), justify="right", overflow="fold")
        for column in ("accuracy", "macro F1", *(["precision"] if shows_precision else [])):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("seconds", justify="right")
        table.add_column("status", no_wrap=True)
        for rank, outcome in self._numbered():
            scores = [outcome.metrics.get(name) for name in ("accuracy", "macro_f1")]
            table.add_row(
                str(rank) if outcome.status == "finished" else "–",
                str(outcome.number),
                *[Text(_shown(outcome.point[path])) for path in self.spec.search],
                *["–" if score is None else f"{score:.4f}" for score in scores],
                *([outcome.precision or "–"] if shows_precision else []),
                f"{outcome.seconds:.1f}",
                outcome.status,
                style="bold green" if outcome == self.best else None,
            )
        failed = [f"trial {o.number} failed: {o.error}" for o in self.outcomes if o.error]
        table.caption = Text("\n".join(failed)) if failed else None
        return table


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
