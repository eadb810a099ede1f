"""The metric of every trial over its steps, or over its time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from kovar.tuning.record import TrialRecord
from kovar.tuning.report.analysis import Analysis
from kovar.tuning.report.dimension import shown
from kovar.tuning.report.facts import SweepFacts, short_names
from kovar.tuning.report.plots.colors import QUIET, category
from kovar.tuning.report.plots.plot import Plot, Variant
from kovar.tuning.report.sweep_report import SweepReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_COLORED: Final = 8
MAX_LINES: Final = 300
Along = Literal["step", "seconds"]


@dataclass(frozen=True)
class LearningCurves(Plot):
    """Trials in the order of their rank, with the metrics that their evaluations have."""

    slug: ClassVar = "learning-curves"
    title: ClassVar = "Learning curves"
    trials: tuple[TrialRecord, ...]
    metrics: tuple[str, ...]
    facts: SweepFacts

    @classmethod
    def of(cls, report: SweepReport, analysis: Analysis) -> LearningCurves | None:
        """Take the trials that were evaluated; None where none was."""
        trials = tuple([trial for trial in report.ranked if trial.history][:MAX_LINES])
        known = {name for trial in trials for one in trial.history for name in one.metrics}
        first = report.facts.metric
        metrics = [first] * (first in known) + [
            name for name in ("loss",) if name in known - {first}
        ]
        return cls(trials, tuple(metrics), report.facts) if metrics else None

    @property
    def caption(self) -> str:
        """Say which trials have a color."""
        many = len(self.trials) > NUM_COLORED
        colored = f"The {NUM_COLORED} best trials have a color; " if many else ""
        if len(self.trials) == MAX_LINES:
            colored = f"The {MAX_LINES} best trials, {NUM_COLORED} of them with a color; "
        text = f"{colored}a cross ends a trial that was stopped, diverged or failed."
        return text[0].upper() + text[1:]

    def variants(self) -> list[Variant]:
        """Return each metric over steps, and over seconds."""
        names: dict[Along, str] = {"step": "by step", "seconds": "by time"}
        return [
            Variant(f"{metric} {names[along]}", self._traces(metric, along), _layout(metric, along))
            for metric in self.metrics
            for along in names
        ]

    def _traces(self, metric: str, along: Along) -> list[dict[str, Any]]:
        drawn = [
            self._trace(place, trial, metric, along) for place, trial in enumerate(self.trials)
        ]
        # What is drawn last lies on top.
        return [trace for trace in reversed(drawn) if trace["x"]]

    def _trace(self, place: int, trial: TrialRecord, metric: str, along: Along) -> dict[str, Any]:
        x, y = _points(trial, metric, along)
        colored = place < NUM_COLORED
        color = category(place) if colored else QUIET
        ended = trial.status not in ("finished", "unfinished")
        size = 6 if colored else 4
        symbols = ["circle"] * (len(x) - 1) + ["x" if ended else "circle"]
        sizes = [size] * (len(x) - 1) + [8 if ended else size]
        return {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"{trial.number}: {self._point(trial)}",
            "showlegend": colored,
            "legendrank": place,
            "x": x,
            "y": y,
            "line": {"color": color, "width": 2.2 if place == 0 else 1.4},
            "marker": {"color": color, "size": sizes, "symbol": symbols},
            "opacity": 1.0 if colored else 0.45,
            "hovertemplate": f"trial {trial.number} ({trial.status})<br>{self._point(trial)}<br>"
            f"{along} %{{x}}<br>{metric} %{{y:.4f}}<extra></extra>",
        }

    def _point(self, trial: TrialRecord) -> str:
        names = short_names(self.facts.paths)
        parts = [f"{names[p]} {shown(v)}" for p, v in trial.point.items() if p in names]
        return ", ".join(parts[:3]) + (", …" if len(parts) > 3 else "")

    def draw(self, figure: Figure) -> None:
        """Draw the first metric over steps."""
        axes, metric = figure.subplots(), self.metrics[0]
        for place, trial in reversed(list(enumerate(self.trials))):
            x, y = _points(trial, metric, "step")
            colored = place < NUM_COLORED
            color = category(place) if colored else QUIET
            label = f"{trial.number}: {self._point(trial)}" if colored else None
            width = 2.2 if place == 0 else 1.3
            axes.plot(x, y, "o-", color=color, label=label, lw=width, ms=3.5,
                      alpha=1.0 if colored else 0.45, zorder=3 if colored else 2)  # fmt: skip
            if x and trial.status not in ("finished", "unfinished"):
                alpha = 1.0 if colored else 0.7
                axes.plot(x[-1:], y[-1:], "x", color=color, ms=6, mew=1.4, alpha=alpha, zorder=4)
        axes.set(xlabel="step", ylabel=metric)
        axes.set_title(f"{self.facts.name}: {metric} on the evaluation split")
        axes.grid(alpha=0.3)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], title="best trials", fontsize=8, framealpha=0.85)


def _points(trial: TrialRecord, metric: str, along: Along) -> tuple[list[float], list[float]]:
    found = [
        (one.step if along == "step" else one.seconds, one.metrics[metric])
        for one in trial.history
        if math.isfinite(one.metrics.get(metric, math.nan))
    ]
    return [x for x, _ in found], [y for _, y in found]


def _layout(metric: str, along: Along) -> dict[str, Any]:
    title = "step" if along == "step" else "seconds of training"
    return {
        "xaxis": {"title": {"text": title}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": metric}},
        "hovermode": "closest",
        "legend": {"title": {"text": "best trials: "}, "y": -0.16, "yanchor": "top"},
        "height": 560,
    }
