"""Points at the edges of a space: if they are valid, those between them most likely are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from kovar.tuning.search.scale import extremes
from kovar.tuning.search.search import Point
from kovar.tuning.search.space import Space, distinct

MAX_CORNERS: Final = 256


def corners(space: Space) -> list[Point]:
    """List listed values and ends of ranges, in all combinations while these are few.

    Of more than `MAX_CORNERS` combinations it lists those that take each value at least once, each
    dimension changed alone, the one in which all are at their last, and all hardware.
    """
    values = {path: extremes(dimension) for path, dimension in space.dimensions.items()}
    if math.prod(map(len, values.values())) <= MAX_CORNERS:
        return space.crossed(values)
    first = {path: listed[0] for path, listed in values.items()}
    alone = [
        {**first, **_conditions(space, path), path: value}
        for path, listed in values.items()
        for value in listed
    ]
    hardware = {path: values[path] for path in values if path.startswith("resources")}
    if math.prod(map(len, hardware.values())) <= MAX_CORNERS:
        alone += [{**first, **chosen} for chosen in space.crossed(hardware)]
    last = {path: listed[-1] for path, listed in values.items()}
    return distinct(map(space.active, [first, *alone, last]))


def _conditions(space: Space, path: str) -> Mapping[str, JsonValue]:
    """Return values of other dimensions with which this one varies."""
    met: dict[str, JsonValue] = {}
    for other, wanted in space.dimensions[path].when.items():
        value = wanted[0] if isinstance(wanted, list) else wanted
        met |= {**_conditions(space, other), other: value}
    return met
