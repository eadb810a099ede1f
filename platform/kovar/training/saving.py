"""Checkpoints beside training: copied while it stands still, written while it goes on.

A checkpoint counts once it is acknowledged: its files are on the disk under their final name.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kovar.errors import CheckpointError, RunError, SupersededError
from kovar.training.mirror import Mirrored, Uploads

if TYPE_CHECKING:
    from kovar.training.checkpoint import CheckpointFolder, Part, SavedCheckpoint
    from kovar.training.parallel import Parallel
    from kovar.training.state import TrainingState

_NICENESS = 10


@dataclass(frozen=True)
class Acknowledged:
    """A checkpoint that is durable.

    Args:
        saved: where it lies.
        stall_s: seconds for which training stood still: for the copy, and for its writing.
        write_s: seconds that writing took beside it.
    """

    saved: SavedCheckpoint
    stall_s: float
    write_s: float


class CheckpointWriter:
    """Saves this rank's parts, one checkpoint at a time; every rank has one.

    Args:
        folder: of all checkpoints.
        state: what is saved.
        parallel: the ranks.
        num_parts: ranks that write a part, from rank 0 on.
        resumed_from: the step of the checkpoint that the run goes on from; 0 without one.

    Attributes:
        newest: the step of the newest checkpoint that was begun.
        settled: the step of the newest one that every rank knows to be durable.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        state: TrainingState,
        parallel: Parallel,
        *,
        num_parts: int = 1,
        resumed_from: int = 0,
    ) -> None:
        self.folder = folder
        self.newest = self.settled = resumed_from
        self._state = state
        self._parallel = parallel
        self._num_parts = num_parts
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: Future[Acknowledged | None] | None = None
        self._done: list[Acknowledged] = []
        self._error: RunError | None = None
        self._uploads: Uploads | None = None

    def save(self, step: int, *, pinned: int | None = None) -> None:
        """Copy the state and have it written; every rank must call it after the same step.

        Waits for the checkpoint before. Ranks agree whether that one failed, so all of them end.

        Args:
            step: the one just taken.
            pinned: a step whose checkpoint is kept however old it is.

        Raises:
            CheckpointError: the checkpoint before could not be written, on some rank.
        """
        self.drain()
        self.newest = step
        if self._parallel.rank >= self._num_parts or self._thread is None:
            return
        started = time.perf_counter()
        part = self._state.capture(step)
        stall = time.perf_counter() - started
        self._waiting = self._thread.submit(self._write, part, stall, pinned)

    def _write(self, part: Part, stall: float, pinned: int | None) -> Acknowledged | None:
        started = time.perf_counter()
        rank, num_parts = self._parallel.rank, self._num_parts
        saved = self.folder.save(part, rank=rank, num_parts=num_parts, pinned=pinned)
        if saved is None:
            return None
        return Acknowledged(saved, stall, time.perf_counter() - started)

    def acknowledged(self) -> list[Acknowledged]:
        """Return the checkpoints that became durable since the last call, without waiting."""
        if self._waiting is not None and self._waiting.done():
            self._collect()
        done, self._done = self._done, []
        return done

    def mirrored(self, *, wait: bool = False) -> list[Mirrored]:
        """Return what the mirror answered since the last call; wait for the newest if asked to."""
        return self._uploads.answered(wait=wait) if self._uploads else []

    def drain(self) -> None:
        """Wait for the checkpoint that is being written, and settle it; every rank must call it.

        Raises:
            CheckpointError: it could not be written, on some rank.
        """
        self._collect()
        error = self._error
        if not self._parallel.anywhere(error is not None):
            self.settled = self.newest
            return
        raise error or CheckpointError("another rank could not write its part of a checkpoint")

    def _collect(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        started = time.perf_counter()
        try:
            acknowledged = waiting.result()
        except (CheckpointError, SupersededError) as error:
            self._error = error
            return
        if acknowledged is not None:
            stall = acknowledged.stall_s + time.perf_counter() - started
            acknowledged = replace(acknowledged, stall_s=stall)
            self._done.append(acknowledged)
            if self._uploads is not None:
                self._uploads.offer(acknowledged.saved)

    @contextmanager
    def open(self) -> Iterator[CheckpointWriter]:
        """Have a thread that writes while the block runs; what it still writes is finished."""
        if self.folder.mirror is not None and self._parallel.is_main:
            self._uploads = Uploads(self.folder.mirror)
        with ThreadPoolExecutor(
            1, thread_name_prefix="kovar-checkpoint", initializer=_yield_to_training
        ) as self._thread:
            try:
                yield self
            finally:
                if self._uploads is not None:
                    self._uploads.close()


def _yield_to_training() -> None:
    """Let the threads that compute go first: on Linux a thread has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
