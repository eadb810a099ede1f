"""Moments of events as seconds, so that spans can be added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from kovar.events import DRIVER_RANK

Event = Mapping[str, Any]


def seconds_of(event: Event) -> float:
    """Return when an event was written, in seconds since 1970."""
    return datetime.fromisoformat(event["time"]).timestamp()


def leading(events: Iterable[Event]) -> list[Event]:
    """Keep what the driver and rank 0 wrote, in order of time: they tell the whole story.

    Lines without a readable time are left out.
    """
    kept = []
    for event in events:
        try:
            moment = seconds_of(event)
        except (KeyError, TypeError, ValueError):
            continue
        if event.get("rank", 0) in (DRIVER_RANK, 0) or event.get("event") == "failed":
            kept.append((moment, event))
    return [event for _, event in sorted(kept, key=lambda pair: pair[0])]


def number(event: Event, field: str) -> float:
    """Return a number of an event; 0 when an older or damaged line lacks it."""
    value = event.get(field)
    return float(value) if isinstance(value, int | float) else 0.0
