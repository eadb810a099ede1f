"""Heat map of the metric over two fields: learning rate × precision above all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Final

from kovar.tuning.report.analysis import Analysis
from kovar.tuning.report.configuration import Configuration
from kovar.tuning.report.dimension import Dimension, dimensions_of
from kovar.tuning.report.facts import SweepFacts
from kovar.tuning.report.plots.cells import Cells
from kovar.tuning.report.plots.plot import Plot, Variant
from kovar.tuning.report.sweep_report import SweepReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PAIRS: Final = 15
_FIRST: Final = ("training.learning_rate", "precision")


@dataclass(frozen=True)
class Grid:
    """The best of each cell over two fields.

    Args:
        x: field along the horizontal axis, `y` along the vertical one.
        across: labels of the columns.
        up: labels of the rows, from the bottom.
        best: best configuration of each cell, [row][column]; None where none has a result.
        others: word for each cell without a result: a status, or nothing.
        counts: configurations in each cell.
    """

    x: Dimension
    y: Dimension | None
    across: tuple[str, ...]
    up: tuple[str, ...]
    best: tuple[tuple[Configuration | None, ...], ...]
    others: tuple[tuple[str, ...], ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """Both fields."""
        return f"{self.x.name} × {self.y.name}" if self.y else self.x.name


@dataclass(frozen=True)
class HeatMap(Plot):
    """One grid for each pair of fields."""

    slug: ClassVar = "heat-map"
    title: ClassVar = "Heat map"
    grids: tuple[Grid, ...]
    facts: SweepFacts

    @classmethod
    def of(cls, report: SweepReport, analysis: Analysis) -> HeatMap | None:
        """Make the grids; None where nothing varies or nothing has a result."""
        shown = [c for c in report.configurations if c.status != "unfinished" or c.finished]
        dimensions = dimensions_of(shown, report.facts)
        if not dimensions or not report.ranked_configurations:
            return None
        order = {field.path: place for place, field in enumerate(analysis.importance.fields)}
        dimensions.sort(
            key=lambda d: (_FIRST.index(d.path) if d.path in _FIRST else 2, order.get(d.path, 99))
        )
        pairs = list(combinations(dimensions, 2))[:MAX_PAIRS]
        if not pairs:
            return cls((_grid(dimensions[0], None, shown, report),), report.facts)
        return cls(tuple(_grid(x, y, shown, report) for x, y in pairs), report.facts)

    @property
    def caption(self) -> str:
        """Say what a cell is."""
        more = any(count > 1 for row in self.grids[0].counts for count in row)
        each = "the best configuration in it" if more else "a configuration"
        return f"Each cell shows {self.facts.metric} of {each}, averaged over its seeds."

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the PNG in inches."""
        grid = self.grids[0]
        return 3.2 + max(4.0, 1.05 * len(grid.across)), 2.0 + max(1.6, 0.7 * len(grid.up))

    def variants(self) -> list[Variant]:
        """Return one heat map per pair."""
        return [self._variant(grid) for grid in self.grids]

    def _variant(self, grid: Grid) -> Variant:
        values = self._values(grid)
        trace = {
            "type": "heatmap",
            "x": list(grid.across),
            "y": list(grid.up),
            "z": values,
            "text": [[_text(value) for value in row] for row in values],
            "texttemplate": "%{text}",
            "hovertext": [
                [self._hover(grid, row, column) for column in range(len(grid.across))]
                for row in range(len(grid.up))
            ],
            "hoverinfo": "text",
            "hoverongaps": False,
            "colorscale": "Viridis",
            "reversescale": self.facts.mode == "min",
            "xgap": 2,
            "ygap": 2,
            "colorbar": {"title": {"text": self.facts.metric}, "thickness": 14},
        }
        # By place, not by label: plotly.js takes a label that looks like a number for a place.
        notes = [
            {"x": column, "y": row, "text": word, "showarrow": False}
            for row, words in enumerate(grid.others)
            for column, word in enumerate(words)
            if word
        ]
        axis = {"type": "category", "automargin": True, "showgrid": False}
        layout = {
            "xaxis": axis | {"title": {"text": grid.x.name}},
            "yaxis": axis | {"title": {"text": grid.y.name if grid.y else ""}},
            "annotations": notes,
            "height": 170 + max(120, 58 * len(grid.up)),
        }
        return Variant(grid.name, [trace], layout)

    def _values(self, grid: Grid) -> list[list[float | None]]:
        return [[self._value(one) for one in row] for row in grid.best]

    def _value(self, configuration: Configuration | None) -> float | None:
        spread = configuration.metric(self.facts.metric) if configuration else None
        return None if spread is None else spread.mean

    def _hover(self, grid: Grid, row: int, column: int) -> str:
        best = grid.best[row][column]
        spread = best.metric(self.facts.metric) if best else None
        if best is None or spread is None:
            return grid.others[row][column]
        count = grid.counts[row][column]
        more = f"<br>best of {count}" if count > 1 else ""
        return f"configuration {best.number}<br>{self.facts.metric} {spread.shown()}{more}"

    def draw(self, figure: Figure) -> None:
        """Draw the first pair."""
        import numpy as np

        grid, axes = self.grids[0], figure.subplots()
        values = np.array(self._values(grid), dtype=float)
        colors = "viridis" if self.facts.mode == "max" else "viridis_r"
        image = axes.imshow(values, cmap=colors, origin="lower", aspect="auto")
        figure.colorbar(image, label=self.facts.metric)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        for (row, column), value in np.ndenumerate(values):
            share = (value - low) / (high - low) if high > low else 0.0
            bright = share > 0.6 if self.facts.mode == "max" else share < 0.4
            word = grid.others[row][column] if np.isnan(value) else f"{value:.4f}"
            color = "0.4" if np.isnan(value) else "black" if bright else "white"
            axes.text(column, row, word, ha="center", va="center", color=color, fontsize=9)
        axes.set_xticks(range(len(grid.across)), grid.across)
        if max(map(len, grid.across)) > 9:
            axes.tick_params(axis="x", labelrotation=30)
        axes.set_yticks(range(len(grid.up)), grid.up)
        axes.set(xlabel=grid.x.name, ylabel=grid.y.name if grid.y else "")
        axes.set_title(f"{self.facts.name}: {self.facts.metric}")


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _grid(
    x: Dimension, y: Dimension | None, shown: Sequence[Configuration], report: SweepReport
) -> Grid:
    across = Cells.of(x)
    up = Cells.of(y) if y else Cells(("",), (0,) * len(shown))
    cells: dict[tuple[int, int], list[Configuration]] = {}
    for place, one in zip(zip(up.places, across.places, strict=True), shown, strict=True):
        cells.setdefault(place, []).append(one)
    rank = {one.number: place for place, one in enumerate(report.ranked_configurations)}

    def rows(of: Any) -> tuple[tuple[Any, ...], ...]:
        return tuple(
            tuple(of(cells.get((row, column), [])) for column in range(len(across.labels)))
            for row in range(len(up.labels))
        )

    def best(held: list[Configuration]) -> Configuration | None:
        ranked = [one for one in held if one.number in rank]
        return min(ranked, key=lambda one: rank[one.number], default=None)

    def word(held: list[Configuration]) -> str:
        return held[0].status if held and best(held) is None else ""

    return Grid(x, y, across.labels, up.labels, rows(best), rows(word), rows(len))
