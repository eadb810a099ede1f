"""Importance of the varied fields, as bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kovar.tuning.report.analysis import Analysis
from kovar.tuning.report.facts import SweepFacts
from kovar.tuning.report.importance import Importance
from kovar.tuning.report.plots.colors import CATEGORIES, QUIET
from kovar.tuning.report.plots.plot import Plot, Variant
from kovar.tuning.report.sweep_report import SweepReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ImportanceBars(Plot):
    """A bar for each field; gray where they are not to be relied on."""

    slug: ClassVar = "importance"
    title: ClassVar = "Importance of the fields"
    importance: Importance
    facts: SweepFacts

    @classmethod
    def of(cls, report: SweepReport, analysis: Analysis) -> ImportanceBars | None:
        """Take what was found; None where too little is known to say anything."""
        found = analysis.importance
        return cls(found, report.facts) if found.fields else None

    @property
    def caption(self) -> str:
        """Say what a bar is, and how far it can be relied on."""
        explained = self.importance.explained or 0.0
        caution = f" Caution: {self.importance.caution}." if self.importance.caution else ""
        return (
            f"Share of the variance of {self.facts.metric} that a field takes part in: what a "
            f"forest no longer predicts when its values are shuffled. The forest predicts "
            f"{max(0.0, explained):.0%} of the variance of configurations that it has not seen."
            f"{caution}"
        )

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the PNG in inches."""
        return 8.0, 1.6 + 0.5 * len(self.importance.fields)

    @property
    def _color(self) -> str:
        caution = self.importance.caution or ""
        return QUIET if caution.startswith("not to be relied on") else CATEGORIES[0]

    def variants(self) -> list[Variant]:
        """Return the one way to draw it."""
        fields = list(reversed(self.importance.fields))
        trace = {
            "type": "bar",
            "orientation": "h",
            "x": [one.share for one in fields],
            "y": [one.name for one in fields],
            "error_x": {"type": "data", "array": [one.deviation for one in fields], "thickness": 1},
            "marker": {"color": self._color},
            "text": [f"{one.share:.2f}" for one in fields],
            "textposition": "inside",
            "insidetextanchor": "start",
            "hovertext": [f"{f.path}: {f.share:.3f} ± {f.deviation:.3f}" for f in fields],
            "hoverinfo": "text",
        }
        layout = {
            "xaxis": {"title": {"text": "share of the variance"}, "rangemode": "tozero"},
            "yaxis": {"type": "category", "automargin": True},
            "height": 120 + 44 * len(fields),
        }
        return [Variant("all", [trace], layout)]

    def draw(self, figure: Figure) -> None:
        """Draw the bars."""
        axes, fields = figure.subplots(), list(reversed(self.importance.fields))
        shares = [one.share for one in fields]
        axes.barh([one.name for one in fields], shares, xerr=[one.deviation for one in fields],
                  color=self._color, ecolor="0.4", height=0.62)  # fmt: skip
        axes.set_xlim(left=0)
        axes.set_xlabel("share of the variance that the field takes part in")
        axes.set_title(f"{self.facts.name}: what mattered for {self.facts.metric}")
        if self.importance.caution:
            caution = f"Caution: {self.importance.caution}"
            figure.text(0.01, 0.005, caution, fontsize=8, color="0.35")
            axes.set_xlabel("share of the variance that the field takes part in\n")
        axes.grid(axis="x", alpha=0.3)
