"""Quality against cost or time, with the Pareto front and the recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kovar.tuning.report.analysis import Analysis, Front
from kovar.tuning.report.configuration import Configuration
from kovar.tuning.report.dimension import dimensions_of, shown
from kovar.tuning.report.facts import SweepFacts
from kovar.tuning.report.plots.colors import STRONG, category
from kovar.tuning.report.plots.plot import Plot, Variant
from kovar.tuning.report.sweep_report import SweepReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Group:
    """Configurations that are drawn alike, at most a few groups."""

    name: str
    configurations: tuple[Configuration, ...]


@dataclass(frozen=True)
class ParetoFront(Plot):
    """Configurations with a result, in groups, and a front for each price."""

    slug: ClassVar = "pareto"
    title: ClassVar = "Pareto front"
    groups: tuple[_Group, ...]
    fronts: tuple[Front, ...]
    recommended: Configuration | None
    facts: SweepFacts

    @classmethod
    def of(cls, report: SweepReport, analysis: Analysis) -> ParetoFront | None:
        """Collect the points; None where no price is known of all."""
        ranked = report.ranked_configurations
        if not analysis.fronts:
            return None
        chosen = analysis.recommendation.configuration if analysis.recommendation else None
        recommended = next((one for one in ranked if one.number == chosen), None)
        return cls(_groups(ranked, report.facts), analysis.fronts, recommended, report.facts)

    @property
    def caption(self) -> str:
        """Say what the line is."""
        return (
            "No configuration is both better and cheaper than one on the line; bars are standard "
            "deviations over seeds, the ring is the recommendation."
        )

    def variants(self) -> list[Variant]:
        """Return one picture per price."""
        return [self._variant(one) for one in self.fronts]

    def _variant(self, front: Front) -> Variant:
        traces = [
            self._line(front),
            *(self._points(n, g, front) for n, g in enumerate(self.groups)),
        ]
        if self.recommended is not None:
            x, y, _ = self._place(self.recommended, front)
            ring = {"size": 19, "symbol": "circle-open", "color": STRONG, "line": {"width": 2.5}}
            traces.append(
                {"type": "scatter", "mode": "markers", "name": "recommended", "x": [x], "y": [y],
                 "marker": ring, "hoverinfo": "skip"}
            )  # fmt: skip
        prices = [self._place(c, front)[0] for group in self.groups for c in group.configurations]
        scale = "log" if max(prices) / min(prices) > 20 else "linear"
        title = front.price.title
        if front.price.name == "cost":
            title += f" ({self.facts.currency})"
        layout = {
            "xaxis": {"title": {"text": title}, "type": scale},
            "yaxis": {"title": {"text": self.facts.metric}},
            "hovermode": "closest",
            "height": 440,
        }
        return Variant(f"by {front.price.name}", traces, layout)

    def _line(self, front: Front) -> dict[str, Any]:
        by_number = {c.number: c for group in self.groups for c in group.configurations}
        places = [self._place(by_number[number], front) for number in front.configurations]
        return {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [x for x, _, _ in places],
            "y": [y for _, y, _ in places],
            "line": {"shape": "hv", "dash": "dot", "color": STRONG, "width": 1.6},
            "hoverinfo": "skip",
        }

    def _points(self, number: int, group: _Group, front: Front) -> dict[str, Any]:
        places = [self._place(one, front) for one in group.configurations]
        return {
            "type": "scatter",
            "mode": "markers",
            "name": group.name,
            "x": [x for x, _, _ in places],
            "y": [y for _, y, _ in places],
            "error_y": {"type": "data", "array": [d for _, _, d in places], "thickness": 1},
            "marker": {"size": 10, "color": category(number), "line": {"width": 1}},
            "text": [self._told(one, front) for one in group.configurations],
            "hoverinfo": "text",
        }

    def _place(self, one: Configuration, front: Front) -> tuple[float, float, float]:
        """Return price, quality, and the deviation of the quality."""
        paid, quality = front.price.of(one), one.metric(self.facts.metric)
        assert paid is not None, "a price is known of all, or there is no front"  # noqa: S101
        assert quality is not None, "only configurations with a result are ranked"  # noqa: S101
        return paid.mean, quality.mean, quality.deviation or 0.0

    def _told(self, one: Configuration, front: Front) -> str:
        paid, quality = front.price.of(one), one.metric(self.facts.metric)
        parts = [f"{path} = {shown(value)}" for path, value in one.point.items()]
        score = f"{self.facts.metric} {quality.shown()}" if quality else ""
        price = f"{front.price.title} {paid.shown('.4g')}" if paid else ""
        return "<br>".join([f"configuration {one.number}", score, price, *parts])

    def draw(self, figure: Figure) -> None:
        """Draw the first price."""
        axes, front = figure.subplots(), self.fronts[0]
        line = self._line(front)
        axes.step(line["x"], line["y"], where="post", color=STRONG, ls=":", label="Pareto front")
        for number, group in enumerate(self.groups):
            places = [self._place(one, front) for one in group.configurations]
            axes.errorbar([x for x, _, _ in places], [y for _, y, _ in places],
                          yerr=[d for _, _, d in places], fmt="o", color=category(number), ms=7,
                          elinewidth=1, mec="white", label=group.name)  # fmt: skip
        if self.recommended is not None:
            x, y, _ = self._place(self.recommended, front)
            axes.plot([x], [y], "o", ms=15, mfc="none", mec=STRONG, mew=2, label="recommended")
            axes.annotate(f"configuration {self.recommended.number}", (x, y), xytext=(11, -13),
                          textcoords="offset points", color=STRONG, fontsize=9)  # fmt: skip
        layout = self._variant(front).layout
        axes.set_xscale(layout["xaxis"]["type"])
        axes.set(xlabel=layout["xaxis"]["title"]["text"], ylabel=self.facts.metric)
        axes.set_title(f"{self.facts.name}: {self.facts.metric} against {front.price.name}")
        axes.grid(alpha=0.3)
        axes.margins(0.08)
        axes.legend(fontsize=9)


def _groups(ranked: list[Configuration], facts: SweepFacts) -> tuple[_Group, ...]:
    """Color by node type where there are several, else by precision, else all alike."""
    dimensions = {one.path: one for one in dimensions_of(ranked, facts)}
    by = [dimensions[path] for path in ("chip", "precision") if path in dimensions]
    keys = list(zip(*(one.texts for one in by), strict=True)) if by else [("",)] * len(ranked)
    names = sorted(set(keys))
    if len(names) > 8:
        keys = [key[:1] for key in keys]
        names = sorted(set(keys))
    return tuple(
        _Group(
            " · ".join(name) or "configurations",
            tuple(c for c, key in zip(ranked, keys, strict=True) if key == name),
        )
        for name in names
    )
