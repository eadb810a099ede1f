"""How population-based training changes the values that a trial takes over."""

from __future__ import annotations

from pydantic import JsonValue

from kovar.tuning.dimension import Choice, Dimension, Grid, Integer
from kovar.tuning.scheduler import CHANGEABLE, Pbt
from kovar.tuning.search.draws import generator_of
from kovar.tuning.search.scale import unit_of, value_at
from kovar.tuning.search.search import Point
from kovar.tuning.search.space import Space
from kovar.tuning.spec import SweepSpec


def explore(spec: SweepSpec, point: Point, *, draw: int) -> Point:
    """Change the fields of a donor's point that may change while a trial trains.

    Args:
        spec: a sweep whose scheduler is pbt.
        point: the donor's.
        draw: counts the changes in a sweep; decides, with the seed, what is drawn.

    Returns:
        A point of the same space.
    """
    assert isinstance(spec.scheduler, Pbt)  # noqa: S101 (for the type checker)
    generator = generator_of(spec.seed, draw)
    changed = dict(point)
    for path in point:
        resampled, unit, up = generator.random(), generator.random(), generator.random() < 0.5
        dimension = spec.search[path]
        if path not in CHANGEABLE or isinstance(dimension, Grid):
            continue
        if resampled < spec.scheduler.resample_probability:
            changed[path] = value_at(dimension, unit)
        else:
            changed[path] = _perturbed(dimension, point[path], spec.scheduler.factor, up=up)
    return Space(spec.search).active(changed)


def _perturbed(dimension: Dimension, value: JsonValue, factor: float, *, up: bool) -> JsonValue:
    """Multiply or divide a number within its range; move a choice to its neighbor."""
    if isinstance(dimension, Grid | Choice):
        place = next((i for i, one in enumerate(dimension.values) if one == value), 0)
        place += 1 if up else -1
        return dimension.values[min(max(place, 0), len(dimension.values) - 1)]
    assert isinstance(value, int | float)  # noqa: S101 (for the type checker)
    moved = min(max(value * factor if up else value / factor, dimension.low), dimension.high)
    if isinstance(dimension, Integer):
        return round(moved)
    # Through the unit interval, so that it stays on the steps of the range.
    unit = unit_of(dimension, moved)
    return moved if dimension.step is None or unit is None else value_at(dimension, unit)
