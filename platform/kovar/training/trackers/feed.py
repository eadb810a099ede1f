"""Feeds trackers from the event log, beside the run: they can neither break it nor slow it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

from kovar.errors import MissingExtraError
from kovar.events import EventTail
from kovar.settings import TrackerName
from kovar.training.folder import RunFolder
from kovar.training.trackers.scalars import Point, ScalarReader
from kovar.training.trackers.tracker import TrackedRun, Tracker

POLL_S: Final = 1.0
FINISH_S: Final = 30.0
"""How long the end of a run waits for its trackers."""

_log: Final = logging.getLogger(__name__)


def _wandb(run: TrackedRun) -> Tracker:
    from kovar.training.trackers.wandb_run import WandbRun

    return WandbRun(run)


def _mlflow(run: TrackedRun) -> Tracker:
    from kovar.training.trackers.mlflow_run import MlflowRun

    return MlflowRun(run)


Open = Callable[[TrackedRun], Tracker]

TRACKERS: Final[dict[TrackerName, Open]] = {"mlflow": _mlflow, "wandb": _wandb}


def check_trackers(names: Iterable[TrackerName]) -> None:
    """Refuse trackers whose package is not installed, before any work.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    for name in names:
        if find_spec(name) is None:
            raise MissingExtraError.of(name, needed_for=f"the tracker {name}")


@contextmanager
def tracking(
    names: Sequence[TrackerName],
    run: TrackedRun,
    *,
    opened_by: dict[TrackerName, Open] = TRACKERS,
    finish_s: float = FINISH_S,
) -> Iterator[None]:
    """Send what a run writes into its log to trackers, while the block runs.

    Args:
        names: the trackers; with none, nothing happens.
        run: the run; its folder holds the log.
        opened_by: makes each tracker.
        finish_s: seconds that the end waits for them.
    """
    if not names:
        yield
        return
    feeds = [_Feed(name, opened_by[name], run) for name in names]
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        for feed in feeds:
            feed.end(succeeded=succeeded)
        for feed in feeds:
            feed.join(finish_s)


class _Feed:
    """One tracker in a thread of its own, opened at the first scalar."""

    def __init__(self, name: str, opened_by: Open, run: TrackedRun) -> None:
        self._name, self._open, self._run = name, opened_by, run
        self._tail = EventTail(RunFolder(run.folder).events)
        self._tail.read()
        self._reader = ScalarReader()
        self._tracker: Tracker | None = None
        self._ended = threading.Event()
        self._succeeded = False
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def end(self, *, succeeded: bool) -> None:
        """Let the tracker take what is left."""
        self._succeeded = succeeded
        self._ended.set()

    def join(self, seconds: float) -> None:
        """Wait for it, but not for ever."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            _log.warning("tracker %s has not taken everything after %g s", self._name, seconds)

    def _work(self) -> None:
        try:
            last = False
            while not last:
                last = self._ended.wait(POLL_S)
                for event in self._tail.read():
                    if (point := self._reader.read(event)) is not None:
                        self._log(point)
            if self._tracker is not None:
                self._tracker.finish(succeeded=self._succeeded)
        except Exception as problem:
            # A tracker is other people's code and other people's servers: whatever it raises.
            _log.warning("tracker %s is off for this run: %s", self._name, problem)

    def _log(self, point: Point) -> None:
        if self._tracker is None:
            self._tracker = self._open(self._run)
        self._tracker.log(point)
