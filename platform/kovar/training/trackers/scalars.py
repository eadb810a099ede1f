"""The scalars that trackers draw, read from events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kovar.training.history.moment import Event, number, seconds_of

_OF_STEP: Final = ("loss", "learning_rate", "gradient_norm", "padding", "memory_bytes", "epoch")


@dataclass(frozen=True)
class Point:
    """Scalars of one step; their names have a group, as in `train/loss`."""

    step: int
    at: float
    """Seconds since 1970."""
    scalars: Mapping[str, float]


@dataclass
class ScalarReader:
    """Turns events into points; remembers what a token costs."""

    _per_token: float = field(default=0.0, init=False)
    _peak: float = field(default=0.0, init=False)

    def read(self, event: Event) -> Point | None:
        """Return the point that an event makes; None for events without scalars."""
        if event.get("rank", 0) != 0:
            return None
        match event.get("event"):
            case "started":
                self._per_token = number(event, "flops_per_token")
                self._peak = number(event, "peak_flops") * (number(event, "world_size") or 1)
                return None
            case "step":
                scalars = self._of_step(event)
            case "evaluated":
                group = "final" if event.get("final") else "evaluation"
                scalars = _named(group, event.get("metrics"))
            case _:
                return None
        return Point(int(number(event, "step")), seconds_of(event), scalars) if scalars else None

    def _of_step(self, event: Event) -> dict[str, float]:
        scalars = {name: event[name] for name in _OF_STEP if name in event}
        if number(event, "seconds") > 0:
            speed = number(event, "tokens") / number(event, "seconds")
            scalars["tokens_per_s"] = speed
            if self._per_token:
                scalars["flops_per_s"] = speed * self._per_token
            if self._per_token and self._peak:
                scalars["peak_share"] = speed * self._per_token / self._peak
        return _named("train", scalars)


def _named(group: str, values: Any) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    return {
        f"{group}/{name}": float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
