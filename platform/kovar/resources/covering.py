"""The exact answer where greed fails: Gilmore and Gomory's cutting-stock model.

How many nodes hold which mix of workers is an integer program. Its relaxation proves that no
arrangement exists, or is rounded to one. What is still undecided, which is rare, goes to a solver
of mixed-integer programs, with all the mixes that leave no room for one worker more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kovar.resources.budget import Budget, undecided
from kovar.resources.greedy import Packed, free_nodes, num_added, pack_greedily
from kovar.resources.mixes import Mixes
from kovar.resources.need import Mix, Need, Room
from kovar.resources.relaxation import TINY, Column, Relaxation

_MOST_ROUNDINGS: Final = 40
"""Relaxations that are solved to round one; after so many the solver is the quicker way."""

_MOST_COLUMNS_OF_NODES: Final = 200_000
"""What the solver may do: the nodes of its search times the columns of the program."""

_STEPS_PER_COLUMN: Final = 700
"""What the solver takes for a column, as steps of the budget."""

_INFEASIBLE: Final = 2
"""The status with which `scipy.optimize.milp` says that there is no solution."""

_WIDTH: Final = 3
"""Fractional columns of a solution that are rounded up in turn, the nearest to whole first."""


def cover(
    needs: Sequence[Need],
    wanted: Mix,
    rooms: Sequence[Room],
    limit: int,
    pool: Sequence[dict[Mix, None]],
    budget: Budget,
) -> Packed | None:
    """Place all the wanted workers while at most `limit` nodes are added.

    Args:
        needs: what the workers take.
        wanted: the number of workers of each.
        rooms: the nodes that there are.
        limit: the most nodes that may be added.
        pool: for each room the mixes that earlier calls have found; new ones are added.
        budget: the work that this may take.

    Returns:
        None if it is impossible.

    Raises:
        UndecidedError: the budget or the solver's limit was reached first.
    """
    budget.check()
    relaxation = Relaxation(needs, wanted, rooms, limit, pool, budget)
    solution = relaxation.solve()
    if relaxation.is_impossible:
        return None
    packed = None
    if solution is not None:
        packed = _Rounding(needs, wanted, rooms, limit, pool, budget).search([], solution)
    return _searched(needs, wanted, rooms, limit, budget) if packed is None else packed


class _Rounding:
    """A search for whole numbers near a fractional solution; finding none proves nothing."""

    def __init__(
        self,
        needs: Sequence[Need],
        wanted: Mix,
        rooms: Sequence[Room],
        limit: int,
        pool: Sequence[dict[Mix, None]],
        budget: Budget,
    ) -> None:
        self.needs, self.wanted, self.rooms, self.limit = needs, wanted, rooms, limit
        self.pool, self.budget = pool, budget
        self.roundings_left = _MOST_ROUNDINGS

    def search(self, packed: Packed, solution: dict[Column, float]) -> Packed | None:
        """Keep the whole nodes of a solution, and place the rest greedily or once more."""
        whole: Packed = [(*column, int(amount + TINY)) for column, amount in solution.items()]
        packed, _ = _trimmed([*packed, *whole], self.wanted)
        self.budget.spend(len(packed) * len(self.needs) ** 2)
        complete = pack_greedily(self.needs, self.wanted, self.rooms, start=packed)
        if complete is not None and num_added(complete, self.rooms) <= self.limit:
            return complete
        fractions = {
            c: amount % 1 for c, amount in solution.items() if TINY < amount % 1 < 1 - TINY
        }
        for column in sorted(fractions, key=lambda column: -fractions[column])[:_WIDTH]:
            found = self._with_one_more(packed, column)
            if found is not None:
                return found
        return None

    def _with_one_more(self, packed: Packed, column: Column) -> Packed | None:
        if not self.roundings_left or self.budget.is_spent:
            return None
        if not sum(free_nodes(packed, self.rooms)[column[0]]):
            return None
        self.roundings_left -= 1
        packed, left = _trimmed([*packed, (*column, 1)], self.wanted)
        may_add = self.limit - num_added(packed, self.rooms)
        if may_add < 0 or not any(left):
            return packed if may_add >= 0 else None
        free = [
            replace(room, up=up, extra=extra)
            for room, (up, extra) in zip(self.rooms, free_nodes(packed, self.rooms), strict=True)
        ]
        relaxation = Relaxation(self.needs, left, free, may_add, self.pool, self.budget)
        solution = relaxation.solve()
        return None if solution is None else self.search(packed, solution)


def _trimmed(packed: Packed, wanted: Mix) -> tuple[Packed, Mix]:
    """Take away the workers beyond those wanted; return with them those that are missing."""
    left = wanted
    kept: Packed = []
    for place, full, number in packed:
        for _ in range(number):
            mix = tuple(map(min, full, left))
            left = tuple(rest - count for rest, count in zip(left, mix, strict=True))
            if any(mix):
                kept.append((place, mix, 1))
    return kept, left


def _searched(
    needs: Sequence[Need], wanted: Mix, rooms: Sequence[Room], limit: int, budget: Budget
) -> Packed | None:
    """Solve the integer program with all mixes: the fewest added nodes, then the cheapest.

    Raises:
        UndecidedError: too many mixes, or a solver that found nothing and proved nothing.
    """
    columns = [
        (place, mix)
        for place, room in enumerate(rooms)
        for mix in Mixes(room, needs, wanted, budget).full()
    ]
    if not columns:
        return None
    budget.spend(len(columns) * _STEPS_PER_COLUMN)
    budget.check()
    numbers = _solve(columns, wanted, rooms, limit)
    if numbers is None:
        return None
    chosen = [(*column, round(n)) for column, n in zip(columns, numbers, strict=False)]
    # The solver computes in floating point; counting in whole numbers is what proves its answer.
    packed, left = _trimmed(chosen, wanted)
    is_real = not any(left) and all(min(free) >= 0 for free in free_nodes(packed, rooms))
    if is_real and num_added(packed, rooms) <= limit:
        return packed
    raise undecided()


def _solve(
    columns: Sequence[Column], wanted: Mix, rooms: Sequence[Room], limit: int
) -> Sequence[float] | None:
    """Return how many nodes hold each mix; None when there is no solution, () when none is found.

    The unknowns: how many nodes hold each mix, then how many nodes of each room are added.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    held = np.array([mix for _, mix in columns]).T
    of_room = np.array(
        [[place == number for number, _ in columns] for place in range(len(rooms))], dtype=int
    )
    added = np.eye(len(rooms), dtype=int)
    prices = [0.0 if math.isinf(room.price) else room.price for room in rooms]
    # All prices together weigh less than one node.
    whole = 1 + sum(price * room.extra for price, room in zip(prices, rooms, strict=True))
    solution = milp(
        c=[0.0] * len(columns) + [1 + price / whole for price in prices],
        integrality=1,
        bounds=Bounds(
            0,
            [rooms[place].up + rooms[place].extra for place, _ in columns]
            + [room.extra for room in rooms],
        ),
        constraints=[
            LinearConstraint(np.hstack([held, np.zeros((len(wanted), len(rooms)))]), lb=wanted),
            LinearConstraint(np.hstack([of_room, -added]), ub=[room.up for room in rooms]),
            LinearConstraint([0] * len(columns) + [1] * len(rooms), ub=limit),
        ],
        options={"node_limit": max(1, _MOST_COLUMNS_OF_NODES // len(columns))},
    )
    if solution.status == _INFEASIBLE:
        return None
    return () if solution.x is None else [float(number) for number in solution.x]
