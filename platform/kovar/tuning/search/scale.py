"""From the unit interval to a dimension's values and back.

Every searcher moves between 0 and 1; steps, whole numbers and logarithms are the same for all.
"""

from __future__ import annotations

import math

from pydantic import JsonValue

from kovar.tuning.dimension import (
    Choice,
    Dimension,
    Grid,
    Integer,
    LogUniform,
    Range,
    is_logarithmic,
    same,
)


def value_at(dimension: Dimension, unit: float) -> JsonValue:
    """Return the value at a place in [0, 1]."""
    match dimension:
        case Grid() | Choice():
            return dimension.values[_part(unit, len(dimension.values))]
        case Integer(log=True):
            low, high = math.log(dimension.low - 0.5), math.log(dimension.high + 0.5)
            return int(_snapped(dimension, math.exp(low + unit * (high - low))))
        case Integer():
            return dimension.low + dimension.step * _part(unit, _num_steps(dimension))
        case LogUniform():
            low, high = math.log(dimension.low), math.log(dimension.high)
            return _snapped(dimension, math.exp(low + unit * (high - low)))
        case _:
            if dimension.step is not None:
                return _stepped(dimension, _part(unit, _num_steps(dimension)))
            return dimension.low + unit * (dimension.high - dimension.low)


def unit_of(dimension: Dimension, value: JsonValue) -> float | None:
    """Return the place of a value; None where the dimension does not have it."""
    if isinstance(dimension, Grid | Choice):
        places = [place for place, one in enumerate(dimension.values) if same(one, value)]
        return (places[0] + 0.5) / len(dimension.values) if places else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not dimension.low <= value <= dimension.high:
        return None
    if isinstance(dimension, Integer) and not float(value).is_integer():
        return None
    return _place(dimension, float(value))


def _place(dimension: Range, value: float) -> float:
    if isinstance(dimension, Integer):
        margin = 0.5 if dimension.log else dimension.step / 2
    else:
        margin = 0.0 if is_logarithmic(dimension) or dimension.step is None else dimension.step / 2
    low, high = dimension.low - margin, dimension.high + margin
    if is_logarithmic(dimension):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return min(1.0, max(0.0, (value - low) / (high - low)))


def all_values(dimension: Dimension) -> list[JsonValue] | None:
    """List the values; None where there is no end of them."""
    if isinstance(dimension, Grid | Choice):
        return list(dimension.values)
    if dimension.step is None:
        return None
    return [_stepped(dimension, place) for place in range(_num_steps(dimension))]


def num_values(dimension: Dimension) -> int | None:
    """Count the values without listing them; None where there is no end of them."""
    if isinstance(dimension, Grid | Choice):
        return len(dimension.values)
    return None if dimension.step is None else _num_steps(dimension)


def extremes(dimension: Dimension) -> list[JsonValue]:
    """List the values that stand for all: every listed one, or the ends of a range."""
    if isinstance(dimension, Grid | Choice):
        return list(dimension.values)
    return [dimension.low, _snapped(dimension, dimension.high)]


def _part(unit: float, num_parts: int) -> int:
    return min(int(unit * num_parts), num_parts - 1)


def _num_steps(dimension: Range) -> int:
    # A hundredth of a step is less than what decimal fractions lose in binary.
    return int((dimension.high - dimension.low) / (dimension.step or 1) + 0.01) + 1


def _stepped(dimension: Range, place: int) -> int | float:
    value = dimension.low + place * (dimension.step or 1)
    return value if isinstance(dimension, Integer) else float(f"{value:.12g}")


def _snapped(dimension: Range, value: float) -> int | float:
    """Move a value to the nearest step within the range."""
    value = min(max(value, dimension.low), dimension.high)
    if dimension.step is None:
        return value
    place = round((value - dimension.low) / dimension.step)
    return _stepped(dimension, min(place, _num_steps(dimension) - 1))
