"""Searchers that do not learn: all combinations, independent draws, a low-discrepancy sequence."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final

from kovar.tuning.search.scale import all_values
from kovar.tuning.search.search import Point, Search
from kovar.tuning.search.space import Space
from kovar.tuning.search.turns import Turn, Turns

MAX_ATTEMPTS: Final = 100
"""Draws for a configuration that was not tried, until one is chosen among those that are left."""


def generator_of(*parts: int) -> random.Random:
    """Return a generator that these numbers decide."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 (a sweep is no secret)


def one_of(points: Sequence[Point], *parts: int) -> Point | None:
    """Choose a point, each as likely as another; None of none."""
    return generator_of(*parts).choice(points) if points else None


class Combinations(Search):
    """Every combination of all values, in the order of the file."""

    def __init__(self, space: Space) -> None:
        values = {path: all_values(d) or [] for path, d in space.dimensions.items()}
        self._points = space.crossed(values)

    def ask(self, number: int) -> Point | None:
        """Return the combination of this number."""
        return self._points[number - 1] if number <= len(self._points) else None

    def recall(self, number: int, point: Point) -> None:
        """Nothing follows from what was proposed before."""


class Draws(Search):
    """Points at random; a sample is shared by all combinations of the grids, so that they compare.

    Args:
        space: what varies.
        num_samples: samples, each for the whole grid.
        seed: of all draws.
    """

    def __init__(self, space: Space, *, num_samples: int, seed: int) -> None:
        self._space, self._num_samples, self._seed = space, num_samples, seed
        self._turns = Turns(space, num_samples)

    def ask(self, number: int) -> Point | None:
        """Draw a point that was not tried before."""
        drawn = (self._drawn(turn) for turn in self._turns.left())
        point = next((one for one in drawn if one is not None), None)
        if point is not None:
            self.recall(number, point)
        return point

    def recall(self, number: int, point: Point) -> None:
        """Remember a point, so that it is not drawn again."""
        self._turns.take(point)

    def _drawn(self, turn: Turn) -> Point | None:
        """Draw beside a combination of the grids; None where all of its points were tried."""
        units = self._sample(turn.sample)
        for attempt in range(MAX_ATTEMPTS):
            point = self._space.point_at(turn.combination, units)
            if not self._turns.has(point):
                return point
            units = self._independent(turn.place + 1, attempt)
        return one_of(self._turns.untried(turn), self._seed, turn.place)

    def _sample(self, sample: int) -> Mapping[str, float]:
        generator = generator_of(self._seed, sample)
        return {path: generator.random() for path in self._space.drawn}

    def _independent(self, place: int, attempt: int) -> Mapping[str, float]:
        generator = generator_of(self._seed, place, attempt)
        return {path: generator.random() for path in self._space.drawn}


class QuasiRandomDraws(Draws):
    """Samples of a scrambled Sobol sequence."""

    def _sample(self, sample: int) -> Mapping[str, float]:
        return dict(zip(self._space.drawn, self._sequence[sample], strict=True))

    @cached_property
    def _sequence(self) -> list[list[float]]:
        from scipy.stats import qmc

        num_dimensions = len(self._space.drawn)
        if not num_dimensions:
            return [[] for _ in range(self._num_samples)]
        # The sequence is balanced at powers of two; a generator that draws so many never warns.
        exponent = (self._num_samples - 1).bit_length()
        engine = qmc.Sobol(num_dimensions, scramble=True, rng=self._seed)
        points: list[list[float]] = engine.random_base2(exponent).tolist()
        return points
