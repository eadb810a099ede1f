"""Placing workers by first fit: quick, and finding nothing proves nothing."""

from __future__ import annotations

from collections.abc import Sequence

from kovar.resources.need import Mix, Need, Room

Packed = list[tuple[int, Mix, int]]
"""Rooms by their place in the list, what each node in use holds, and how many nodes hold that."""


def pack_greedily(
    needs: Sequence[Need],
    wanted: Mix,
    rooms: Sequence[Room],
    *,
    start: Packed | None = None,
    spares_accelerators: bool = False,
) -> Packed | None:
    """Place the most demanding needs first, on nodes in use, then up, then added.

    For a single need and no `start` this adds the fewest nodes possible.

    Args:
        needs: what the workers take.
        wanted: the number of workers of each.
        rooms: the nodes that there are.
        start: nodes that are in use already, with no more than the wanted workers.
        spares_accelerators: whether to add nodes without accelerators rather than fewer nodes.

    Returns:
        None when some worker finds no place.
    """
    opened = list(start or [])
    free = free_nodes(opened, rooms)
    empty = (0,) * len(needs)
    for index in sorted(range(len(needs)), key=lambda i: _hardness(needs[i]), reverse=True):
        left = wanted[index] - sum(mix[index] * number for _, mix, number in opened)
        if left:
            left, opened = _fill(rooms, needs, opened, index, left)
        spares = spares_accelerators and not needs[index].units
        while left:
            best = min(
                (
                    (extra, room.idle if spares else 0, -each, room.price, room.idle, place)
                    for place, room in enumerate(rooms)
                    for extra in (0, 1)
                    if free[place][extra] and (each := room.holds(needs, empty, index, left))
                ),
                default=None,
            )
            if best is None:
                return None
            extra, each, place = best[0], -best[2], best[-1]
            number = min(free[place][extra], left // each)
            free[place][extra] -= number
            opened.append((place, plus(empty, index, each), number))
            left -= number * each
    return opened


def num_added(packed: Packed, rooms: Sequence[Room]) -> int:
    """Count the nodes in use beyond those that are always up."""
    return sum(
        room.extra - extra
        for room, (_, extra) in zip(rooms, free_nodes(packed, rooms), strict=True)
    )


def plus(mix: Mix, index: int, count: int) -> Mix:
    """Return a mix with more workers of one need."""
    return (*mix[:index], mix[index] + count, *mix[index + 1 :])


def free_nodes(packed: Packed, rooms: Sequence[Room]) -> list[list[int]]:
    """Count the nodes of each room that are not in use: those that are up, and the others.

    Nodes are taken from those that are up first.
    """
    used = [0] * len(rooms)
    for place, _, number in packed:
        used[place] += number
    return [
        [max(0, room.up - count), room.extra - max(0, count - room.up)]
        for room, count in zip(rooms, used, strict=True)
    ]


def _fill(
    rooms: Sequence[Room], needs: Sequence[Need], opened: Packed, index: int, left: int
) -> tuple[int, Packed]:
    """Put workers of one need onto nodes that are in use; return how many are left over."""
    after: Packed = []
    for place, mix, number in opened:
        each = rooms[place].holds(needs, mix, index, left) if left else 0
        full = min(number, left // each) if each else 0
        if full:
            after.append((place, plus(mix, index, each), full))
            left -= full * each
        rest = number - full
        if rest and left and each:
            # One more node takes what is left, which is less than it could.
            some = rooms[place].holds(needs, mix, index, left)
            if some:
                after.append((place, plus(mix, index, some), 1))
                left -= some
                rest -= 1
        if rest:
            after.append((place, mix, rest))
    return left, after


def _hardness(need: Need) -> tuple[bool, bool, int, int, tuple[int, ...]]:
    return need.step > 1, need.together, need.gpus, need.share, need.amounts
