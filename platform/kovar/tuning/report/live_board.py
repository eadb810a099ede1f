"""TensorBoard while a sweep runs: every evaluation is there as soon as it is reported."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kovar.tuning.points import Point
from kovar.tuning.record import Evaluation
from kovar.tuning.report.board import session_start
from kovar.tuning.report.event_file import append_events, scalar_events, summary_event
from kovar.tuning.report.facts import SweepFacts

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

LIVE_FILE: Final = "events.out.tfevents.0000000000.live"
"""Sorts before the file that `write_board` puts in its place when the sweep has ended."""

_log: Final = logging.getLogger(__name__)


class LiveBoard:
    """Appends to one event file per trial; what cannot be written is told once and left.

    Args:
        folder: as `write_board` takes it.
        facts: of the sweep.
    """

    def __init__(self, folder: Path, facts: SweepFacts) -> None:
        self._folder, self._facts = folder, facts
        self._is_off = False

    def started(self, number: int, *, configuration: int, point: Point, at: float) -> None:
        """Begin a trial's session; a trial that starts again has one already."""
        path = self._path(number)
        if self._is_off or path.exists():
            return
        fields = {name: point.get(name) for name in self._facts.paths}
        start = session_start(fields, configuration=configuration, at=at)
        self._append(path, [summary_event(start, at=at)], at)

    def evaluated(self, number: int, evaluation: Evaluation, *, at: float) -> None:
        """Append the scores of an evaluation."""
        if not self._is_off:
            scalars = [
                (f"evaluation/{name}", value, evaluation.step, at)
                for name, value in evaluation.metrics.items()
                if math.isfinite(value)
            ]
            self._append(self._path(number), list(scalar_events(scalars)), at)

    def _path(self, number: int) -> Path:
        return self._folder / f"trial-{number:04d}" / LIVE_FILE

    def _append(self, path: Path, events: list[Event], at: float) -> None:
        try:
            append_events(path, events, at=at)
        except OSError as problem:
            # A full disk ends the sweep elsewhere; its pictures are no reason to.
            self._is_off = True
            _log.warning("TensorBoard is off for this sweep: %s", problem)
