"""Everything that a sweep leaves behind for people and machines, written into its folder."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kovar.tuning.report.analysis import Analysis, analyze
from kovar.tuning.report.board import write_board
from kovar.tuning.report.page import sweep_page
from kovar.tuning.report.plots import draw_pictures, make_plots
from kovar.tuning.report.results import write_results
from kovar.tuning.report.sweep_report import SweepReport

PAGE: Final = "report.html"
PICTURES: Final = "pictures"
BOARD: Final = "tensorboard"

_log: Final = logging.getLogger(__name__)


def write_report(report: SweepReport, folder: Path) -> Analysis:
    """Write `results.json`, `results.parquet`, the page, the PNGs and TensorBoard's event files.

    The results come first. What only shows them is no reason to fail a sweep: a picture or a page
    that cannot be made is told as a warning, whatever the reason.

    Args:
        report: the sweep.
        folder: of the sweep; files of an earlier call are replaced.

    Returns:
        What follows from the trials.
    """
    analysis = analyze(report, folder)
    write_results(report, analysis, folder)
    _shielded("page", lambda: _write_page(report, analysis, folder))
    _shielded("pictures", lambda: _write_pictures(report, analysis, folder))
    _shielded("event files", lambda: write_board(report, folder / BOARD))
    return analysis


def _shielded(what: str, write: Callable[[], None]) -> None:
    try:
        write()
    except Exception as problem:
        _log.warning("the sweep's %s cannot be written: %s", what, problem)


def _write_page(report: SweepReport, analysis: Analysis, folder: Path) -> None:
    partial = folder / f".{PAGE}.{os.getpid()}"
    partial.write_text(sweep_page(report, analysis), encoding="utf-8")
    partial.replace(folder / PAGE)


def _write_pictures(report: SweepReport, analysis: Analysis, folder: Path) -> None:
    shutil.rmtree(folder / PICTURES, ignore_errors=True)
    draw_pictures(make_plots(report, analysis), folder / PICTURES)
