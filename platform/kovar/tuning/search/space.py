"""The space of a sweep: grids that are tried in full, dimensions that are drawn, conditions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pydantic import JsonValue

from kovar.config import canonical_json
from kovar.tuning.dimension import Dimension, Grid
from kovar.tuning.search.scale import all_values, num_values, unit_of, value_at
from kovar.tuning.search.search import Point

MAX_LISTED: Final = 20_000
"""Points that are listed: of more, a sweep cannot have tried most."""


def key_of(point: Point) -> bytes:
    """Return what equal points have in common."""
    return canonical_json(point)


@dataclass(frozen=True)
class Space:
    """All dimensions of a sweep.

    Args:
        dimensions: dotted path → how it varies.
    """

    dimensions: Mapping[str, Dimension]

    @cached_property
    def drawn(self) -> dict[str, Dimension]:
        """The dimensions without the grids."""
        return {p: d for p, d in self.dimensions.items() if not isinstance(d, Grid)}

    @cached_property
    def combinations(self) -> list[Point]:
        """Every combination of the grids; one that is empty where there are none."""
        grids = {p: d.values for p, d in self.dimensions.items() if isinstance(d, Grid)}
        return self.crossed(grids)

    @cached_property
    def open_combinations(self) -> list[Point]:
        """The combinations beside which something is drawn, so that each may be tried often."""
        return [one for one in self.combinations if self.drawn_beside(one)]

    def drawn_beside(self, combination: Point) -> list[str]:
        """List the drawn dimensions that may vary beside a combination of the grids."""
        return [
            path
            for path, dimension in self.drawn.items()
            if all(
                dimension.holds(other, combination[other])
                if other in combination
                else other in self.drawn
                for other in dimension.when
            )
        ]

    def crossed(self, values: Mapping[str, Sequence[JsonValue]]) -> list[Point]:
        """Combine listed values, each combination once, without the dimensions that do not vary."""
        points = (
            self.active(dict(zip(values, combination, strict=True)))
            for combination in itertools.product(*values.values())
        )
        return distinct(points)

    def active(self, point: Point) -> Point:
        """Leave out the values whose conditions are not met, in the order of the dimensions."""
        left = {path: point[path] for path in self.dimensions if path in point}
        while idle := [path for path in left if not self.varies(path, left)]:
            for path in idle:
                del left[path]
        return left

    def varies(self, path: str, point: Point) -> bool:
        """Tell whether the conditions on a dimension are met by the others' values."""
        dimension = self.dimensions[path]
        return all(
            other in point and dimension.holds(other, point[other]) for other in dimension.when
        )

    def gridded(self, point: Point) -> Point:
        """Return the part of a point that the grids decide."""
        return {path: value for path, value in point.items() if path not in self.drawn}

    def cell_of(self, point: Point) -> bytes:
        """Return what points have in common whose grids have the same values."""
        return key_of(self.gridded(point))

    def has(self, point: Point) -> bool:
        """Tell whether a point holds every dimension that varies there, at a value it can have."""
        varying = {path for path in self.dimensions if self.varies(path, point)}
        return set(point) == varying and all(
            unit_of(self.dimensions[path], value) is not None for path, value in point.items()
        )

    def point_at(self, combination: Point, units: Mapping[str, float]) -> Point:
        """Complete a combination of the grids by the values at places between 0 and 1."""
        drawn = {path: value_at(self.drawn[path], unit) for path, unit in units.items()}
        return self.active({**combination, **drawn})

    def listed(self, combination: Point) -> list[Point] | None:
        """List every point with a combination of the grids; None where there is no end of them."""
        paths = self.drawn_beside(combination)
        numbers = [num_values(self.drawn[path]) or 0 for path in paths]
        if not all(numbers) or math.prod(numbers) > MAX_LISTED:
            return None
        values = [all_values(self.drawn[path]) or [] for path in paths]
        return distinct(
            self.active({**combination, **dict(zip(paths, chosen, strict=True))})
            for chosen in itertools.product(*values)
        )

    def turn(self, place: int) -> tuple[int, Point] | None:
        """Return the round of a turn, from 0, and its combination of the grids.

        The first round is all combinations; the later ones are those beside which something is
        drawn.

        Args:
            place: of the turn, from 0.

        Returns:
            None where there are no further turns.
        """
        if place < len(self.combinations):
            return 0, self.combinations[place]
        if not self.open_combinations:
            return None
        rounds, place = divmod(place - len(self.combinations), len(self.open_combinations))
        return rounds + 1, self.open_combinations[place]

    def num_configurations(self, num_samples: int) -> int:
        """Return how many configurations so many rounds have."""
        return len(self.combinations) + (num_samples - 1) * len(self.open_combinations)


def distinct(points: Iterable[Point]) -> list[Point]:
    """Leave out points that stand before."""
    return list({key_of(point): point for point in reversed(list(points))}.values())[::-1]
