"""TensorBoard: event files in the run's folder, written by rank 0."""

from __future__ import annotations

from pathlib import Path

from kovar.training.trackers.scalars import Point


class TensorBoard:
    """A tracker that is always on: its files are local and small.

    Args:
        folder: where the event files go.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log(self, point: Point) -> None:
        """Write the scalars of one step."""
        for name, value in point.scalars.items():
            self._writer.add_scalar(name, value, point.step, walltime=point.at)

    def finish(self, *, succeeded: bool) -> None:
        """Flush the file."""
        self._writer.close()
