"""Parallel coordinates: every configuration a line across the fields, colored by its metric.

Drawn as plain lines and not as plotly's `parcoords`, which needs WebGL and code made from text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Final

from kovar.tuning.report.analysis import Analysis
from kovar.tuning.report.configuration import Configuration
from kovar.tuning.report.dimension import Dimension, dimensions_of, shown
from kovar.tuning.report.facts import SweepFacts
from kovar.tuning.report.plots.colors import viridis
from kovar.tuning.report.plots.plot import Plot, Variant
from kovar.tuning.report.sweep_report import SweepReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_LINES: Final = 300
_MAX_TICKS: Final = 12


@dataclass(frozen=True)
class Axis:
    """One vertical axis; places are between 0 and 1.

    Args:
        name: of the field.
        places: of each configuration.
        ticks: place and text of each mark.
    """

    name: str
    places: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class ParallelCoordinates(Plot):
    """Configurations with a result, the worst first, and their axes; the last is the metric."""

    slug: ClassVar = "parallel-coordinates"
    title: ClassVar = "Parallel coordinates"
    configurations: tuple[Configuration, ...]
    axes: tuple[Axis, ...]
    facts: SweepFacts
    num_left_out: int

    @classmethod
    def of(cls, report: SweepReport, analysis: Analysis) -> ParallelCoordinates | None:
        """Make the axes; None where fewer than two configurations have a result."""
        ranked = report.ranked_configurations
        kept = tuple(reversed(ranked[:MAX_LINES]))
        dimensions = dimensions_of(kept, report.facts)
        if len(kept) < 2 or not dimensions:
            return None
        values = [s.mean for c in kept if (s := c.metric(report.facts.metric)) is not None]
        metric = Dimension(report.facts.metric, report.facts.metric, tuple(values), is_log=False)
        axes = tuple(_axis(dimension) for dimension in [*dimensions, metric])
        return cls(kept, axes, report.facts, len(ranked) - len(kept))

    @property
    def caption(self) -> str:
        """Say what a line is."""
        best = "largest" if self.facts.mode == "max" else "smallest"
        left = f" The worst {self.num_left_out} are left out." if self.num_left_out else ""
        return (
            f"Each line is a configuration; the lightest have the {best} {self.facts.metric}. "
            f"Lines that share a value are drawn a little apart.{left}"
        )

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the PNG in inches."""
        return max(8.0, 1.9 * len(self.axes)), 5.2

    @property
    def shares(self) -> list[float]:
        """Place of each configuration on the color scale."""
        places = self.axes[-1].places
        shares = (one if self.facts.mode == "max" else 1 - one for one in places)
        # The brightest end of the scale is hard to see on white.
        return [0.92 * share for share in shares]

    def variants(self) -> list[Variant]:
        """Return the one way to draw them."""
        shares, num = self.shares, len(self.axes)
        lines = [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": list(range(num)),
                "y": [axis.places[index] for axis in self.axes],
                "line": {"color": viridis(shares[index]), "width": 1.6},
                "marker": {"size": 5},
                "text": self._told(configuration),
                "hoverinfo": "text",
                "showlegend": False,
            }
            for index, configuration in enumerate(self.configurations)
        ]
        ticks = [
            {"x": x, "y": place, "text": text, "showarrow": False, "xanchor": "right",
             "xshift": -9, "font": {"size": 11}}
            for x, axis in enumerate(self.axes)
            for place, text in axis.ticks
        ]  # fmt: skip
        layout = {
            "xaxis": {
                "tickvals": list(range(num)),
                "ticktext": [axis.name for axis in self.axes],
                "side": "top",
                "range": [-0.35, num - 0.8],
                "showline": False,
                "zeroline": False,
                "fixedrange": True,
            },
            "yaxis": {"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
            "annotations": ticks,
            "hovermode": "closest",
            "margin": {"l": 24, "r": 24, "t": 48, "b": 16},
            "height": 430,
        }
        return [Variant("all", lines, layout)]

    def _told(self, configuration: Configuration) -> str:
        spread = configuration.metric(self.facts.metric)
        parts = [f"{path} = {shown(value)}" for path, value in configuration.point.items()]
        score = f"{self.facts.metric} {spread.shown()}" if spread else ""
        return "<br>".join([f"configuration {configuration.number}: {score}", *parts])

    def draw(self, figure: Figure) -> None:
        """Draw the lines over hand-made axes."""
        plot, num = figure.subplots(), len(self.axes)
        for index, share in enumerate(self.shares):
            plot.plot(range(num), [axis.places[index] for axis in self.axes],
                      color=viridis(share), lw=1.4, marker="o", ms=3)  # fmt: skip
        for x, axis in enumerate(self.axes):
            plot.axvline(x, color="0.75", lw=0.8, zorder=0)
            for place, text in axis.ticks:
                plot.annotate(
                    text,
                    (x, place),
                    xytext=(-6, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=8,
                    bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 0.6},
                )
        plot.set_xticks(range(num), [axis.name for axis in self.axes])
        plot.xaxis.tick_top()
        plot.tick_params(length=0)
        plot.set_yticks([])
        plot.set(xlim=(-0.5, num - 0.9), ylim=(-0.06, 1.06))
        for spine in plot.spines.values():
            spine.set_visible(False)
        plot.set_title(self.facts.name, pad=26)


def _axis(dimension: Dimension) -> Axis:
    if dimension.is_numeric and dimension.num_distinct > 1:
        return _numeric(dimension)
    labels = dimension.categories
    step = 1 / max(1, len(labels) - 1)
    places = [labels.index(text) * step for text in dimension.texts]
    ticks = tuple((place * step, label) for place, label in enumerate(labels))
    return Axis(dimension.name, _apart(places, room=0.25 * min(step, 0.25)), ticks)


def _numeric(dimension: Dimension) -> Axis:
    numbers = dimension.numbers
    low, high = min(numbers), max(numbers)
    places = [(one - low) / (high - low) for one in numbers]
    distinct = sorted(set(places))
    texts = dict(zip(places, dimension.texts, strict=True))
    if len(distinct) > _MAX_TICKS or min(_gaps(distinct)) < 0.04:
        marks = [number / 4 for number in range(5)]
        ends = [low + (high - low) * mark for mark in marks]
        ticks = [shown(10**end if dimension.is_log else end) for end in ends]
        return Axis(dimension.name, tuple(places), tuple(zip(marks, ticks, strict=True)))
    apart = _apart(places, room=0.2 * min([0.25, *_gaps(distinct)]))
    return Axis(dimension.name, apart, tuple((place, texts[place]) for place in distinct))


def _gaps(places: Sequence[float]) -> list[float]:
    return [b - a for a, b in pairwise(places)]


def _apart(places: Sequence[float], *, room: float) -> tuple[float, ...]:
    """Move equal places a little apart, so that lines through one value can be followed."""
    moved = list(places)
    for place in set(places):
        held = [index for index, one in enumerate(places) if one == place]
        for number, index in enumerate(held):
            share = number / (len(held) - 1) - 0.5 if len(held) > 1 else 0.0
            moved[index] = place + share * room
    return tuple(moved)
