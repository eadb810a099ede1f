"""The durable event log of a run: one JSON object a line, appended, never rewritten.

Every line has `v` (schema version, 1), `time` (UTC, ISO 8601 with microseconds), `run`, `attempt`
(counts from 1; a restarted worker group is a new attempt), `rank` (-1 for the driver) and `event`.
The further fields of each kind are in `FIELDS`. Readers ignore fields and kinds that they do not
know, and a torn last line (the writer was killed in the middle of it).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

EventKind = Literal[
    "queued",
    "prepared",
    "planned",
    "placing",
    "placed",
    "preparing",
    "waiting",
    "started",
    "compiled",
    "step",
    "checkpoint",
    "mirrored",
    "resumed",
    "skipped",
    "rolled_back",
    "shrunk",
    "measured",
    "evaluated",
    "stopped",
    "preempted",
    "finished",
    "registered",
    "failed",
]

FIELDS: Final[dict[EventKind, str]] = {
    "queued": "spec (name), kind",
    "prepared": "seconds (before `queued`), spans (seconds by what was done: tokenizing train, …)",
    "planned": "num_workers, placement, request, precision, reason, device, "
    "cost (dollars per hour)",
    "placing": "num_workers (the workers now wait for hardware)",
    "placed": "num_workers, nodes (host names)",
    "preparing": "what (for example evaluating), done, total",
    "waiting": "seconds, reason (what keeps the workers from starting)",
    "started": "world_size, num_steps, epochs, device, precision, reason, padding (longest row or "
    "none), padding_reason, pid (each rank's own), "
    "metric (the primary one), chip, flops_per_token (forward and backward), "
    "peak_flops (of one chip; null if unknown)",
    "compiled": "step, seconds",
    "step": "step, epoch, loss, learning_rate, tokens, targets, seconds, padding, gradient_norm, "
    "memory_bytes",
    "checkpoint": "step, path, size_bytes, seconds (for which training stood still), "
    "write_seconds (beside training; from now on it survives a power cut)",
    "mirrored": "step, seconds (of the copy to remote storage), error (null for a whole copy)",
    "resumed": "step, path, ignored (checkpoints that did not verify, with reasons)",
    "skipped": "step, steps (whose gradients were not finite: they changed no weight), "
    "total (of the run), allowed",
    "rolled_back": "step (where the numbers were not finite), to_step (a checkpoint; 0: the "
    "beginning), was (precision), precision (from there on), reason",
    "shrunk": "step (a pass ran out of memory), micro_batch_tokens (from there on)",
    "measured": "micro_batch_tokens (as many as fit), bytes_per_token, fixed_bytes, "
    "optimizer_bytes, free_bytes, seconds",
    "evaluated": "step, data (name), metrics, seconds, final (true: by the runtime that serves)",
    "stopped": "step, metric, best_step (the one that is registered)",
    "preempted": "step (the checkpoint saved before the workers ended), reason",
    "finished": "step, weights_digest",
    "registered": "model, version (number), digest",
    "failed": "error (class), message, field (of the spec, where one is at fault)",
}

DRIVER_RANK: Final = -1


class EventLog:
    """The one writer of a process.

    Args:
        path: the run's `events.jsonl`; created with its folder.
        run: the run's id.
        attempt: counts from 1.
        rank: the worker's rank, or `DRIVER_RANK`.
        guard: called before each event; raises when this writer may write no more.
        durable: whether milestones survive a power cut; without, they survive this process alone.

    Each event is a single `write` to a file opened for appending, so lines of several processes
    do not mix on a local file system. Every event but `step` is also fsynced, if durable.
    """

    def __init__(
        self,
        path: Path,
        *,
        run: str,
        attempt: int = 1,
        rank: int = DRIVER_RANK,
        guard: Callable[[], None] | None = None,
        durable: bool = True,
    ) -> None:
        self._guard = guard
        self._durable = durable
        path.parent.mkdir(parents=True, exist_ok=True)
        self._base = {"run": run, "attempt": attempt, "rank": rank}
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def emit(self, event: EventKind, **fields: Any) -> dict[str, Any]:
        """Append one event and return it; on return a durable log has a milestone on the disk.

        Raises:
            ValueError: unknown kind, a field without a JSON form, or NaN.
        """
        if event not in get_args(EventKind):
            raise ValueError(f"unknown event {event!r}; known: {', '.join(get_args(EventKind))}")
        if self._guard is not None:
            self._guard()
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        record = {"v": 1, "time": now, **self._base, "event": event, **fields}
        line = json.dumps(record, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            # A writer died in the middle of a line: end it, so that it damages only itself.
            line = b"\n" + line
        os.write(self._fd, line)
        if self._durable and event != "step":
            os.fsync(self._fd)
        return record

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class EventTail:
    """Reads a log as it grows: each call returns what was appended since the one before.

    Args:
        path: the run's `events.jsonl`; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the whole events that are new; a line that is being written comes next time."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(_parse(whole))


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole events of a log in file order; nothing when there is no log yet."""
    if not path.exists():
        return
    yield from _parse(path.read_bytes())


def _parse(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record
