"""Moments of events as seconds, so that spans can be added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from kovar.events import DRIVER_RANK

Event = Mapping[str, Any]

_OF_ONE_RANK: Final = ("failed", "shrunk")


def seconds_of(event: Event) -> float:
    """Return when an event was written, in seconds since 1970."""
    return datetime.fromisoformat(event["time"]).timestamp()


def leading(events: Iterable[Event]) -> list[Event]:
    """Keep what the driver and rank 0 wrote, in order of time: they tell almost the whole story.

    What befell another rank alone, a failure or a full memory, belongs to it.

    Lines without a readable time are left out.
    """
    kept = []
    for event in events:
        try:
            moment = seconds_of(event)
        except (KeyError, TypeError, ValueError):
            continue
        if event.get("rank", 0) in (DRIVER_RANK, 0) or event.get("event") in _OF_ONE_RANK:
            kept.append((moment, event))
    return [event for _, event in sorted(kept, key=lambda pair: pair[0])]


def number(event: Event, field: str) -> float:
    """Return a number of an event; 0 when an older or damaged line lacks it."""
    value = event.get(field)
    return float(value) if isinstance(value, int | float) else 0.0
