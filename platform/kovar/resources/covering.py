"""The exact answer where greed fails: Gilmore and Gomory's cutting-stock model.

Every node holds one of the mixes that leave no room for one worker more. How many nodes hold which
is an integer program. Source: P. Gilmore and R. Gomory, A linear programming approach to the
cutting-stock problem, Operations Research 9 (1961).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kovar.resources.need import Mix, Need, Room

Column = tuple[int, Mix]
"""A room, by its place in the list, and what one node of it holds."""


def cover(
    needs: Sequence[Need], wanted: Mix, rooms: Sequence[Room]
) -> list[tuple[Room, Mix, int]] | None:
    """Place all the wanted workers on the fewest added nodes, the cheapest of such arrangements.

    Returns:
        Rooms, what each node in use holds and the number of such nodes; None if it is impossible.
    """
    columns = [
        (place, mix) for place, room in enumerate(rooms) for mix in full_mixes(room, needs, wanted)
    ]
    if not columns:
        return None
    return _counted_out(_solve(columns, wanted, rooms), columns, wanted, rooms)


def full_mixes(room: Room, needs: Sequence[Need], wanted: Mix) -> list[Mix]:
    """List the mixes of a node to which no worker that is wanted can be added."""
    mixes: list[Mix] = [()]
    for index, need in enumerate(needs):
        rest = (0,) * (len(needs) - index)
        grown: list[Mix] = []
        for mix in mixes:
            most = room.holds(needs, (*mix, *rest), index, wanted[index])
            step = most if need.together else need.step
            is_last = index == len(needs) - 1
            counts = [most] if is_last or not most else range(0, most + 1, step)
            grown += [(*mix, count) for count in counts]
        mixes = grown
    return [mix for mix in mixes if any(mix) and _is_full(room, needs, wanted, mix)]


def _is_full(room: Room, needs: Sequence[Need], wanted: Mix, mix: Mix) -> bool:
    return not any(
        room.holds(needs, mix, index, wanted[index] if need.together else need.step)
        for index, need in enumerate(needs)
        if mix[index] < wanted[index]
    )


def _solve(columns: Sequence[Column], wanted: Mix, rooms: Sequence[Room]) -> Sequence[float]:
    """Return how many nodes hold each mix, or nothing when there is no solution.

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
        ],
    )
    return () if solution.x is None else [float(number) for number in solution.x]


def _counted_out(
    solution: Sequence[float], columns: Sequence[Column], wanted: Mix, rooms: Sequence[Room]
) -> list[tuple[Room, Mix, int]] | None:
    """List the chosen nodes without the workers beyond those wanted; None if some are missing.

    The solver computes in floating point; counting in whole numbers is what proves its answer.
    """
    left = list(wanted)
    free = [room.up + room.extra for room in rooms]
    packed = []
    for (place, full), number in zip(columns, solution, strict=False):
        for _ in range(round(number)):
            mix = tuple(min(count, rest) for count, rest in zip(full, left, strict=True))
            left = [rest - count for rest, count in zip(left, mix, strict=True)]
            free[place] -= any(mix)
            if any(mix):
                packed.append((rooms[place], mix, 1))
    return None if any(left) or min(free) < 0 else packed
