"""The sign of life of a run's driver, which other machines can see where locks do not reach."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kovar.training.folder import write_json

BEAT_S: Final = 5.0
SILENT_AFTER_S: Final = 60.0
"""A driver whose heartbeat is older does not live; a shared file system may be slow to tell."""


@dataclass(frozen=True)
class Heartbeat:
    """What is known of the process that executes a run, or executed it last."""

    host: str
    pid: int
    beat_at: float
    """Seconds since 1970, by the clock of the file system."""
    ended: bool = False
    """Whether the process said that it is done."""

    def lives(self, now: float) -> bool:
        """Say whether the process executes the run at this moment.

        On its own machine the process is asked for; from another one its silence decides.
        """
        if self.ended:
            return False
        if self.host == socket.gethostname() and not _exists(self.pid):
            return False
        return now - self.beat_at < SILENT_AFTER_S


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Keep a heartbeat while the block runs, then leave a last one that says so."""
    identity = {"host": socket.gethostname(), "pid": os.getpid()}
    write_json(path, identity)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_S):
            # A full or vanished disk is told by the run itself.
            with suppress(OSError):
                os.utime(path, (time.time(), time.time()))

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(OSError):
            write_json(path, identity | {"ended": True})


def read_heartbeat(path: Path) -> Heartbeat | None:
    """Return the last heartbeat; None when there is none, or none that can be read."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Heartbeat(
            host=str(told["host"]),
            pid=int(told["pid"]),
            beat_at=path.stat().st_mtime,
            ended=bool(told.get("ended", False)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
