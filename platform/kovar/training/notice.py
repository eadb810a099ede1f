"""Notices that a machine goes away: who hears them, and how all ranks act on one at the same step.

A rank that was told cannot save alone. After each step every rank adds its flag to an exchange on
the CPU, and learns the result after the next one, by when it has long arrived: so all of them save
after the same step, one later than the notice, and no device waits for it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from kovar.training.parallel import Parallel

Hears = Callable[[], str | None]
"""Returns the reason why this process has to end soon; None while nobody told it so."""


def nothing() -> str | None:
    """Hear nothing."""
    return None


class Terminations:
    """Hears SIGTERM, and what it is told.

    Python gives signals to the main thread alone: `install` has to be called there. While nobody
    listens, the signal does what it did before.
    """

    def __init__(self) -> None:
        self._listening = False
        self._told: str | None = None
        self._before: Any = None

    def install(self) -> None:
        """Take the signal; once in a process."""
        if self._before is None:
            self._before = signal.signal(signal.SIGTERM, self._take) or signal.SIG_DFL

    @contextmanager
    def listening(self) -> Iterator[Hears]:
        """Hear the signal while the block runs, if it was taken; give back what says so."""
        if threading.current_thread() is threading.main_thread():
            self.install()
        self._listening, self._told = True, None
        try:
            yield lambda: self._told
        finally:
            self._listening = False

    def tell(self, reason: str) -> None:
        """Have whoever listens hear a reason; without effect while nobody does."""
        if self._listening:
            self._told = reason

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._listening and not self._told:
            self._told = "SIGTERM"
            return
        # Nobody listens, or the second one asks for haste.
        signal.signal(number, self._before)
        self._before = None
        signal.raise_signal(number)


TERMINATIONS = Terminations()
"""A process has one disposition of each signal."""


def install_terminations() -> None:
    """Take SIGTERM for this process; to be called in its main thread."""
    TERMINATIONS.install()


def tell_to_end(reason: str) -> None:
    """Have the training in this process save and end."""
    TERMINATIONS.tell(reason)


class Notices:
    """All ranks' notices; call `agreed` after each step, and `close` in the end.

    Args:
        hears: this rank's notice.
        parallel: the ranks.
    """

    def __init__(self, hears: Hears, parallel: Parallel) -> None:
        self._hears = hears
        self._group: Any = None
        self._pending: tuple[Any, Any] | None = None
        if parallel.world_size > 1:
            import torch.distributed

            # Of its own, so that it is on the CPU and in the order of nothing else.
            self._group = torch.distributed.new_group(backend="gloo")

    def agreed(self) -> str | None:
        """Return why all ranks have to end after this step; the same on each of them."""
        reason = self._hears()
        if self._group is None:
            return reason
        before = self._result()
        self._send(reason)
        return (reason or "another worker was told to end") if before else None

    def _send(self, reason: str | None) -> None:
        import torch
        import torch.distributed

        flag = torch.tensor(int(reason is not None), dtype=torch.int64)
        work = torch.distributed.all_reduce(flag, group=self._group, async_op=True)
        self._pending = (work, flag)

    def _result(self) -> bool:
        if self._pending is None:
            return False
        work, flag = self._pending
        self._pending = None
        work.wait()
        return int(flag) > 0

    def close(self) -> None:
        """Take the last exchange in; all ranks have taken as many steps."""
        self._result()
