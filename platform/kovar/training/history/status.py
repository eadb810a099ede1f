"""Whether a run works, waits or has ended, from its events and its driver's sign of life."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, get_args

from kovar.events import DRIVER_RANK
from kovar.training.folder import RunFolder
from kovar.training.heartbeat import read_heartbeat
from kovar.training.history.moment import Event

Status = Literal["queued", "waiting", "running", "finished", "failed", "interrupted"]

STATUSES: Final[tuple[Status, ...]] = get_args(Status)

LIVE: Final[frozenset[Status]] = frozenset({"queued", "waiting", "running"})

_INTERRUPTIONS: Final = ("KeyboardInterrupt", "SystemExit")


def status_of(events: Sequence[Event], *, lives: bool, complete: bool) -> Status:
    """Judge a run; the end of its log is enough.

    Args:
        events: the log, or its last part.
        lives: a driver executes the run.
        complete: the run's result is there.
    """
    latest = _since_submission(events)
    kinds = [event.get("event") for event in latest]
    if kinds[-1:] == ["finished"] and all(event.get("rank") != DRIVER_RANK for event in events):
        return "finished"  # a sweep's trial has no driver of its own
    if lives:
        if any(kind in kinds for kind in ("started", "step", "evaluated")):
            return "running"
        return "waiting" if {"planned", "placing", "placed"} & set(kinds) else "queued"
    if complete:
        return "finished"
    failures = [event for event in latest if event.get("event") == "failed"]
    by_driver = [e for e in failures if e.get("rank") == DRIVER_RANK]
    told = (by_driver or failures)[-1:]
    if told and told[0].get("error") not in _INTERRUPTIONS:
        return "failed"
    return "interrupted"


def _since_submission(events: Sequence[Event]) -> Sequence[Event]:
    for index in range(len(events) - 1, -1, -1):
        if events[index].get("event") == "queued":
            return events[index:]
    return events


def driver_lives(folder: RunFolder, *, now: float | None = None) -> bool:
    """Say whether a process executes a run: its driver beats, or an older one holds the lock.

    The driver of a trial is that of its sweep, whose folder is the one above.
    """
    sweep = RunFolder(folder.root.parent)
    heartbeat = read_heartbeat(folder.heartbeat) or read_heartbeat(sweep.heartbeat)
    if heartbeat is not None:
        return heartbeat.lives(time.time() if now is None else now)
    return _locked_here(folder.lock)


def _locked_here(lock: Path) -> bool:
    """Ask the kernel who holds a lock, without taking it: a driver must not find it taken."""
    try:
        inode = lock.stat().st_ino
        held = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return False
    return any(line.split()[-3].endswith(f":{inode}") for line in held.splitlines())
