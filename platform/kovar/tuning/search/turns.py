"""Which combination of the grids is next: round after round, without those that are used up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from kovar.tuning.search.search import Point
from kovar.tuning.search.space import Space, key_of


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    Args:
        place: from 0; those of combinations that are used up are passed over.
        sample: the round, from 0.
        combination: of the grids.
    """

    place: int
    sample: int
    combination: Point


class Turns:
    """The turns of a sweep, and the points that were tried.

    What is left of a combination follows from the points alone, so whoever hears of them again
    goes on with the same turn.

    Args:
        space: what varies.
        num_samples: rounds.
    """

    def __init__(self, space: Space, num_samples: int) -> None:
        self._space, self._num_samples = space, num_samples
        self._next = 0
        self._seen: set[bytes] = set()
        self._listed: dict[bytes, list[Point]] = {}
        """Those that are left, by combination, once they were looked for."""

    def left(self) -> Iterator[Turn]:
        """Yield the turns that follow; whoever finds nothing in one asks for the next."""
        for turn in self._from(self._next):
            if self._listed.get(key_of(turn.combination)) != []:
                yield turn

    def untried(self, turn: Turn) -> list[Point]:
        """List the points of a turn's combination that were not tried.

        An empty list passes the combination over from here on; it is empty, too, where the points
        are too many to be listed.
        """
        key = key_of(turn.combination)
        if key not in self._listed:
            self._listed[key] = self._space.listed(turn.combination) or []
        self._listed[key] = [point for point in self._listed[key] if not self.has(point)]
        return self._listed[key]

    def has(self, point: Point) -> bool:
        """Tell whether a point was tried."""
        return key_of(point) in self._seen

    def take(self, point: Point) -> None:
        """Take a point as tried, in the turn that is next for its combination of the grids."""
        self._seen.add(key_of(point))
        wanted = self._space.cell_of(point)
        places = (t.place for t in self._from(self._next) if key_of(t.combination) == wanted)
        self._next = next(places, self._next) + 1

    def _from(self, place: int) -> Iterator[Turn]:
        for following in count(place):
            found = self._space.turn(following)
            if found is None or found[0] >= self._num_samples:
                return
            yield Turn(following, *found)
