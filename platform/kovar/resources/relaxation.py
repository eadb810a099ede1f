"""The linear relaxation of packing: a proof that something is impossible, or a fraction of a plan.

Every node holds one of the mixes that fit on it; a fraction of a node may hold one, too. The mixes
are generated as they are needed. Source: P. Gilmore and R. Gomory, A linear programming approach to
the cutting-stock problem, Operations Research 9 (1961).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kovar.resources.budget import Budget
from kovar.resources.mixes import Mixes
from kovar.resources.need import Mix, Need, Room, most_of
from kovar.resources.simplex import Simplex

TINY: Final = 1e-7

_SCALE: Final = 1 << 24
"""What a worth of one is in the whole numbers of a proof."""

_MOST_ROWS: Final = 64
_MOST_ROUNDS: Final = 400

Column = tuple[int, Mix]
"""A room, by its place in the list, and what one node of it holds."""


class Relaxation:
    """The relaxation of one problem.

    Args:
        needs: what the workers take.
        wanted: the number of workers of each.
        rooms: the nodes that there are.
        limit: the most nodes that may be added.
        pool: mixes of each room that are known already; those that are found are added.
        budget: the work that this may take.

    Attributes:
        is_impossible: whether `solve` has proven that no plan exists.
    """

    def __init__(
        self,
        needs: Sequence[Need],
        wanted: Mix,
        rooms: Sequence[Room],
        limit: int,
        pool: Sequence[dict[Mix, None]],
        budget: Budget,
    ) -> None:
        self.budget = budget
        self.wanted, self.rooms, self.limit, self.pool = wanted, rooms, limit, pool
        self.mixes = [Mixes(room, needs, wanted, budget) for room in rooms]
        self.is_impossible = False
        self._is_limited = limit < sum(room.extra for room in rooms)
        # Rows: one for each need, one for each slot (nodes of a room that count alike towards the
        # limit), and one for the limit.
        self._slots = [
            (place, number, is_extra)
            for place, room in enumerate(rooms)
            for number, is_extra in (
                ((room.up, False), (room.extra, True))
                if self._is_limited
                else ((room.up + room.extra, False),)
            )
            if number
        ]

    def solve(self) -> dict[Column, float] | None:
        """Return how many nodes hold which mix; None when impossible or when it is not decided."""
        right = [*self.wanted, *(number for _, number, _ in self._slots)]
        right += [self.limit] if self._is_limited else []
        if len(right) > _MOST_ROWS:
            return None
        simplex: Simplex[Column] = Simplex(right, num_weighted=len(self.wanted))
        for _ in range(_MOST_ROUNDS):
            if simplex.value() < TINY:
                return self._solution(simplex)
            if self.budget.is_spent or not self._improve(simplex):
                return None
        return None

    def _improve(self, simplex: Simplex[Column]) -> bool:
        """Bring the most useful column in; False when there is none or the proof is complete."""
        self.budget.spend(self._effort())
        duals = simplex.duals()
        num_needs = len(self.wanted)
        # Fewer workers than a column holds, or fewer nodes than there are.
        slack, row = max(
            (dual if row >= num_needs else -dual, row) for row, dual in enumerate(duals)
        )
        if slack > TINY:
            return simplex.enter(None, [(row, 1.0 if row >= num_needs else -1.0)])
        best = self._best_known(duals)
        if best is None:
            best = self._best_new(duals)
        if best is None:
            return False
        slot, mix = best
        return simplex.enter(best, self._entries(slot, mix))

    def _effort(self) -> int:
        """Count what an exchange of columns takes, and a look at all that are known."""
        known = sum(len(self.pool[place]) for place, _, _ in self._slots)
        return (len(self.wanted) + len(self._slots)) ** 2 + known * len(self.wanted)

    def _rent(self, slot: int, duals: Sequence[float]) -> float:
        """Return what a mix must be worth to be put onto a node of this slot."""
        rent = -duals[len(self.wanted) + slot]
        return rent - duals[-1] if self._slots[slot][2] else rent

    def _best_known(self, duals: Sequence[float]) -> tuple[int, Mix] | None:
        gains = [
            (sum(dual * count for dual, count in zip(duals, mix, strict=False)) - rent, slot, mix)
            for slot, (place, _, _) in enumerate(self._slots)
            for rent in (self._rent(slot, duals),)
            for mix in self.pool[place]
        ]
        gain, slot, mix = max(gains, default=(0.0, 0, ()))
        return (slot, mix) if gain > TINY else None

    def _best_new(self, duals: Sequence[float]) -> tuple[int, Mix] | None:
        """Look for mixes that nobody has thought of, and for the proof that nothing helps."""
        worth = [round(max(0.0, dual) * _SCALE) for dual in duals[: len(self.wanted)]]
        each = []
        for mixes, known in zip(self.mixes, self.pool, strict=True):
            so_far = max(
                (sum(w * count for w, count in zip(worth, mix, strict=True)) for mix in known),
                default=0,
            )
            value, found = mixes.best(worth, so_far)
            each.append(value)
            if found is not None:
                known[found] = None
        asked = sum(value * count for value, count in zip(worth, self.wanted, strict=True))
        if asked > most_of(each, self.rooms, self.limit):
            # Whatever the nodes hold is worth less than what is wanted: weak duality, exactly.
            self.is_impossible = True
            return None
        return self._best_known(duals)

    def _entries(self, slot: int, mix: Mix) -> list[tuple[int, float]]:
        entries = [(row, float(count)) for row, count in enumerate(mix) if count]
        entries.append((len(mix) + slot, 1.0))
        if self._slots[slot][2]:
            entries.append((len(mix) + len(self._slots), 1.0))
        return entries

    def _solution(self, simplex: Simplex[Column]) -> dict[Column, float]:
        solution: dict[Column, float] = {}
        for (slot, mix), amount in simplex.solution().items():
            column = self._slots[slot][0], mix
            solution[column] = solution.get(column, 0.0) + amount
        return solution
