"""All plots of a sweep, in the order of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kovar.tuning.report.analysis import Analysis
from kovar.tuning.report.plots.heat_map import HeatMap
from kovar.tuning.report.plots.importance_bars import ImportanceBars
from kovar.tuning.report.plots.learning_curves import LearningCurves
from kovar.tuning.report.plots.parallel import ParallelCoordinates
from kovar.tuning.report.plots.pareto import ParetoFront
from kovar.tuning.report.plots.plot import Plot
from kovar.tuning.report.plots.timeline import Timeline
from kovar.tuning.report.sweep_report import SweepReport

DPI: Final = 120

_KINDS: Final = (
    ParetoFront, HeatMap, LearningCurves, ParallelCoordinates, ImportanceBars, Timeline,
)  # fmt: skip


def make_plots(report: SweepReport, analysis: Analysis) -> list[Plot]:
    """Return the plots that have something to show."""
    return [plot for kind in _KINDS if (plot := kind.of(report, analysis)) is not None]


def draw_pictures(plots: Sequence[Plot], folder: Path) -> list[Path]:
    """Write a PNG of each plot into a folder, and return the files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for plot in plots:
        figure = Figure(figsize=plot.size, layout="constrained")
        FigureCanvasAgg(figure)
        plot.draw(figure)
        paths.append(folder / f"{plot.slug}.png")
        figure.savefig(paths[-1], dpi=DPI)
    return paths
