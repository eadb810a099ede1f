"""The one metric that a run is judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from kovar.training.history.moment import Event

_LOWER_IS_BETTER: Final = ("loss", "perplexity", "ece", "error")


def primary_metric(events: Iterable[Event], metrics: Mapping[str, Any]) -> str | None:
    """Return the metric's name: as the run said when it started, else accuracy, else the loss.

    Args:
        events: a log that holds a `started` event, or not.
        metrics: what was measured.
    """
    named = [event.get("metric") for event in events if event.get("event") == "started"]
    candidates = [*reversed([name for name in named if name]), "accuracy", "loss"]
    return next((str(name) for name in candidates if name in metrics), None)


def better(metric: str, one: float, other: float) -> bool:
    """Say whether a value is better than another."""
    if any(word in metric for word in _LOWER_IS_BETTER):
        return one < other
    return one > other
