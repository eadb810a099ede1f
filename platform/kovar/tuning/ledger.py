"""What a sweep did, line by line: the only state that a sweep is continued from.

`ledger.jsonl` is appended to and never rewritten. A line is a JSON object with `n` (counts from 1),
`at` (UNIX time), `entry` (its kind; `FIELDS` has the further fields) and `digest`: SHA-256 over the
line before's digest and the line's own content, so that a line cannot be changed, dropped or moved
unseen. What follows the last whole line was being written when the driver died, and is ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from kovar.errors import RunError

EntryKind = Literal[
    "opened",
    "proposed",
    "refused",
    "excluded",
    "started",
    "reported",
    "interrupted",
    "exploited",
    "ended",
    "retried",
    "alive",
    "closed",
]

FIELDS: Final[dict[EntryKind, str]] = {
    "opened": "none: a driver takes the sweep up",
    "proposed": "trial, configuration, seed, point",
    "refused": "configuration, point, reason: no fine-tuning spec can hold it",
    "excluded": "trial, reason: it cannot run where it would be placed",
    "started": "trial: an actor took it up",
    "reported": "trial, stop (whether the scheduler ended it with this), and what the trial told: "
    "usage, step, seconds, metrics; node, chip, precision, num_steps, pid; incident; end",
    "interrupted": "trial, reason, lost_node: it goes on elsewhere",
    "exploited": "trial, donor, step, point: it goes on from a copy of the donor's checkpoint",
    "ended": "trial, status, reason",
    "retried": "trial: it failed or was unfinished, and gets another go",
    "alive": "none: the driver lived at this time",
    "closed": "reason: finished, budget, or why the driver gave up",
}

SYNC_EVERY_S: Final = 1.0
"""Lines survive the end of the process at once, and a power cut after this time."""

_START: Final = "kovar sweep ledger 1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    Args:
        number: counts from 1.
        at: UNIX time.
        kind: what happened.
        fields: see `FIELDS`.
    """

    number: int
    at: float
    kind: EntryKind
    fields: dict[str, Any]


class Ledger:
    """The one writer of a sweep's ledger.

    Args:
        path: `ledger.jsonl`; created if it does not exist, and cut after its last whole line.
        clock: seconds since 1970.

    Raises:
        RunError: a line was changed, dropped or moved.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.entries, self._digest, size = _read(path)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._fd, size)
        os.lseek(self._fd, size, os.SEEK_SET)
        self._number, self._size = len(self.entries), size
        self._synced = time.monotonic()

    def append(self, kind: EntryKind, **fields: Any) -> Entry:
        """Write one line and return it; it survives the end of this process.

        Raises:
            OSError: the disk is full; the ledger is as it was.
            ValueError: an unknown kind, a field without a JSON form, or NaN.
        """
        if kind not in get_args(EntryKind):
            raise ValueError(f"unknown entry {kind!r}; known: {', '.join(get_args(EntryKind))}")
        entry = Entry(self._number + 1, round(self._clock(), 3), kind, fields)
        content = _content(entry)
        digest = _chained(self._digest, content)
        line = f'{content[:-1]}, "digest": "{digest}"}}\n'.encode()
        self._write(line)
        self._number, self._digest = entry.number, digest
        if time.monotonic() - self._synced >= SYNC_EVERY_S:
            self.sync()
        return entry

    def _write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            # The next line must not follow a part of this one.
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
            raise
        self._size += written

    def sync(self) -> None:
        """Wait until every line survives a power cut."""
        os.fsync(self._fd)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync, and release the file."""
        self.sync()
        os.close(self._fd)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_ledger(path: Path) -> Iterator[Entry]:
    """Yield the verified lines of a ledger; nothing when there is none yet.

    Raises:
        RunError: a line was changed, dropped or moved.
    """
    yield from _read(path)[0]


def _read(path: Path) -> tuple[list[Entry], str, int]:
    """Return the whole lines, the last one's digest, and how many bytes they take."""
    content = path.read_bytes() if path.exists() else b""
    entries: list[Entry] = []
    digest, size = hashlib.sha256(_START.encode()).hexdigest(), 0
    lines = content.split(b"\n")
    for line in lines[:-1]:
        told = _told(line)
        if told is None or not _follows(told, len(entries) + 1, digest):
            break
        digest = told["digest"]
        entries.append(_entry(told))
        size += len(line) + 1
    # A line that was being written is not whole.
    if any(_is_whole(line) for line in lines[len(entries) : -1]):
        raise RunError(
            f"line {len(entries) + 1} of {path} is damaged",
            hint="run the sweep with --fresh: it starts anew in a folder of its own",
        )
    return entries, digest, size


def _told(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and isinstance(told.get("digest"), str) else None


def _is_whole(line: bytes) -> bool:
    told = _told(line)
    return told is not None and {"n", "at", "entry"} <= told.keys()


def _follows(told: dict[str, Any], number: int, previous: str) -> bool:
    if told.get("n") != number or told.get("entry") not in get_args(EntryKind):
        return False
    return str(told["digest"]) == _chained(previous, _content(_entry(told)))


def _entry(told: dict[str, Any]) -> Entry:
    known = {"n", "at", "entry", "digest"}
    fields = {name: value for name, value in told.items() if name not in known}
    return Entry(told["n"], told["at"], told["entry"], fields)


def _content(entry: Entry) -> str:
    told = {"n": entry.number, "at": entry.at, "entry": entry.kind, **entry.fields}
    return json.dumps(told, allow_nan=False, ensure_ascii=False)


def _chained(previous: str, content: str) -> str:
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()
