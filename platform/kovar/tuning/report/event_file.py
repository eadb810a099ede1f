"""TensorBoard's event files, written by its own record format without a thread per file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

Scalar = tuple[str, float, int, float]
"""Tag, value, step, UNIX time."""


def append_events(path: Path, events: Iterable[Event], *, at: float) -> None:
    """Append events to a file, and begin it with its version where it is new.

    Args:
        path: its name must contain `tfevents`, or TensorBoard passes it over.
        events: in the order of their times.
        at: UNIX time of the file's beginning.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        writer = RecordWriter(file)
        if file.tell() == 0:
            header = Event(wall_time=at, file_version="brain.Event:2")
            writer.write(header.SerializeToString())
        for event in events:
            writer.write(event.SerializeToString())


def summary_event(summary: Any, *, at: float) -> Event:
    """Return the event that carries a summary."""
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=at, summary=summary)


def scalar_events(scalars: Iterable[Scalar]) -> Iterator[Event]:
    """Yield an event for each scalar."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    for tag, value, step, moment in scalars:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        yield Event(wall_time=moment, step=step, summary=summary)
