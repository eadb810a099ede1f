"""When each trial ran on which node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from kovar.config import format_duration
from kovar.tuning.record import Stay, TrialRecord
from kovar.tuning.report.analysis import Analysis
from kovar.tuning.report.facts import SweepFacts
from kovar.tuning.report.plots.colors import OUTCOMES, QUIET
from kovar.tuning.report.plots.plot import Plot, Variant
from kovar.tuning.report.sweep_report import SweepReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_NUMBERED: Final = 150
"""More bars than this have no room for their trial's number."""


@dataclass(frozen=True)
class _Bar:
    trial: TrialRecord
    stay: Stay
    lane: str


@dataclass(frozen=True)
class Timeline(Plot):
    """Stays on nodes; stays of one node at the same time lie in lanes beside each other."""

    slug: ClassVar = "timeline"
    title: ClassVar = "Trials on nodes"
    bars: tuple[_Bar, ...]
    lanes: tuple[str, ...]
    facts: SweepFacts

    @classmethod
    def of(cls, report: SweepReport, analysis: Analysis) -> Timeline | None:
        """Lay the stays into lanes; None where there are none."""
        stays = sorted(
            ((stay, trial) for trial in report.trials for stay in trial.stays),
            key=lambda one: (one[0].node, one[0].started_at, one[1].number),
        )
        ends: dict[str, list[float]] = {}
        placed: list[tuple[TrialRecord, Stay, int]] = []
        for stay, trial in stays:
            lanes = ends.setdefault(stay.node, [])
            free = (n for n, end in enumerate(lanes) if end <= stay.started_at)
            lane = next(free, len(lanes))
            lanes[lane : lane + 1] = [stay.ended_at]
            placed.append((trial, stay, lane))
        types = {stay.node: stay.node_type for stay, _ in stays}
        names = {
            (node, lane): _lane_name(node, types[node], lane, len(lanes))
            for node, lanes in ends.items()
            for lane in range(len(lanes))
        }
        bars = tuple(_Bar(trial, stay, names[stay.node, lane]) for trial, stay, lane in placed)
        return cls(bars, tuple(names.values()), report.facts) if bars else None

    @property
    def caption(self) -> str:
        """Say what a bar is."""
        return "Each bar is a trial on a node, numbered; a trial that was interrupted has several."

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the PNG in inches."""
        return 10.0, min(16.0, 1.8 + 0.42 * len(self.lanes))

    @property
    def _start(self) -> float:
        return min(bar.stay.started_at for bar in self.bars)

    @property
    def _unit(self) -> tuple[str, float]:
        total = max(bar.stay.ended_at for bar in self.bars) - self._start
        return ("s", 1.0) if total < 300 else ("min", 60.0) if total < 18000 else ("h", 3600.0)

    def _outcomes(self) -> list[str]:
        order = list(OUTCOMES)
        found = {bar.stay.outcome for bar in self.bars}
        return sorted(found, key=lambda one: order.index(one) if one in order else len(order))

    def variants(self) -> list[Variant]:
        """Return the one way to draw it: a trace per outcome, for the legend."""
        unit, _ = self._unit
        layout = {
            "barmode": "overlay",
            "bargap": 0.25,
            "xaxis": {"title": {"text": f"since the start ({unit})"}, "rangemode": "tozero"},
            "yaxis": {
                "type": "category",
                "categoryorder": "array",
                "categoryarray": list(reversed(self.lanes)),
                "automargin": True,
            },
            "hovermode": "closest",
            "height": 140 + 34 * len(self.lanes),
        }
        return [Variant("all", [self._trace(one) for one in self._outcomes()], layout)]

    def _trace(self, outcome: str) -> dict[str, Any]:
        bars = [bar for bar in self.bars if bar.stay.outcome == outcome]
        _, size = self._unit
        return {
            "type": "bar",
            "orientation": "h",
            "name": outcome,
            "y": [bar.lane for bar in bars],
            "base": [(bar.stay.started_at - self._start) / size for bar in bars],
            "x": [(bar.stay.ended_at - bar.stay.started_at) / size for bar in bars],
            "marker": {
                "color": OUTCOMES.get(outcome, QUIET),
                "line": {"width": 0.6, "color": "#fff"},
            },
            "text": [str(bar.trial.number) for bar in bars],
            "textposition": "inside",
            "insidetextanchor": "middle",
            "textangle": 0,
            "hovertext": [_told(bar, self.facts) for bar in bars],
            "hoverinfo": "text",
            "showlegend": True,
        }

    def draw(self, figure: Figure) -> None:
        """Draw the bars; numbers where there is room."""
        axes = figure.subplots()
        unit, size = self._unit
        places = {lane: place for place, lane in enumerate(reversed(self.lanes))}
        for outcome in self._outcomes():
            bars = [bar for bar in self.bars if bar.stay.outcome == outcome]
            color = OUTCOMES.get(outcome, QUIET)
            starts = [(bar.stay.started_at - self._start) / size for bar in bars]
            lengths = [(bar.stay.ended_at - bar.stay.started_at) / size for bar in bars]
            axes.barh([places[bar.lane] for bar in bars], lengths, left=starts, height=0.72,
                      color=color, edgecolor="white", lw=0.6, label=outcome)  # fmt: skip
        total = (max(bar.stay.ended_at for bar in self.bars) - self._start) or 1.0
        for bar in self.bars if len(self.bars) <= MAX_NUMBERED else ():
            middle = (bar.stay.started_at + bar.stay.ended_at) / 2 - self._start
            if (bar.stay.ended_at - bar.stay.started_at) / total > 0.018:
                axes.text(middle / size, places[bar.lane], str(bar.trial.number), ha="center",
                          va="center", color="white", fontsize=7)  # fmt: skip
        axes.set_yticks(list(places.values()), list(places))
        axes.set_xlim(left=0)
        axes.set_xlabel(f"since the start ({unit})")
        axes.set_title(f"{self.facts.name}: trials on nodes")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
        axes.grid(axis="x", alpha=0.3)


def _lane_name(node: str, node_type: str | None, lane: int, num_lanes: int) -> str:
    kind = f" ({node_type})" if node_type and node_type != node else ""
    return f"{node}{kind}" + (f" · {lane + 1}" if num_lanes > 1 else "")


def _told(bar: _Bar, facts: SweepFacts) -> str:
    score = bar.trial.metrics.get(facts.metric)
    parts = [
        f"trial {bar.trial.number}: {bar.stay.outcome}",
        f"{bar.stay.node}, {bar.stay.chip}",
        format_duration(bar.stay.ended_at - bar.stay.started_at),
    ]
    if score is not None:
        parts.append(f"{facts.metric} {score:.4f}")
    return "<br>".join([*parts, *bar.trial.incidents])
