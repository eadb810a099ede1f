"""What a tracker is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kovar.training.trackers.scalars import Point


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it begins."""

    run: str
    model: str
    spec: Mapping[str, Any]
    folder: Path


class Tracker(Protocol):
    """Takes the scalars of one run; constructed with its `TrackedRun`.

    It is called from a thread of the driver's own and may take its time; what it raises ends it,
    never the run.
    """

    def log(self, point: Point) -> None:
        """Take the scalars of one step; a resumed run may repeat steps."""

    def finish(self, *, succeeded: bool) -> None:
        """Send what is left and release everything."""
