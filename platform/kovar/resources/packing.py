"""Fitting groups of equal workers onto nodes: exact, all or nothing.

Workers of one need are alike and nodes of one room are alike, so a solution is counted, not
enumerated: how many nodes of a room hold which mix of workers. Quick greedy passes find most
solutions, and sums rule out most of what is impossible; an integer program decides the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kovar.resources.cards import UNITS
from kovar.resources.covering import cover
from kovar.resources.greedy import Packed, num_added, pack_greedily
from kovar.resources.need import Inventory, Mix, Need, Room, most_of


@dataclass(frozen=True)
class PackedNodes:
    """Nodes of one type that hold the same workers.

    Args:
        kind: the number of their node type.
        mix: the workers on each.
        up: how many of them are always up.
        added: how many must be started.
    """

    kind: int
    mix: Mix
    up: int
    added: int


def pack(needs: Sequence[Need], wanted: Mix, inventory: Inventory) -> list[PackedNodes] | None:
    """Place all the wanted workers, or return None when no arrangement holds them all.

    Few nodes are added; among equals those that are cheaper and leave fewer accelerators idle.
    Neither is proven to be the least, the existence of a place for every worker is.

    Raises:
        UndecidedError: the inventory's budget was spent before either was proven.
    """
    different, totals, source = _merged(needs, wanted)
    rooms = inventory.rooms(different)
    packed = _pack_different(different, totals, rooms, inventory)
    if packed is None:
        return None
    return list(_on_node_types(_told_apart(packed, source, wanted), rooms, inventory))


def _merged(needs: Sequence[Need], wanted: Mix) -> tuple[list[Need], Mix, list[int]]:
    """Count the workers of equal needs together, where it does not matter whose they are.

    Returns:
        The different needs, how many of each, and for each of `needs` which of them it is.
    """
    keys = [(need, index if need.is_strict else 0) for index, need in enumerate(needs)]
    totals = dict.fromkeys(keys, 0)
    for key, count in zip(keys, wanted, strict=True):
        totals[key] += count
    order = list(totals)
    return [need for need, _ in order], tuple(totals.values()), [order.index(key) for key in keys]


def _pack_different(
    needs: Sequence[Need], wanted: Mix, rooms: Sequence[Room], inventory: Inventory
) -> Packed | None:
    limit = inventory.most_added
    for spares in (True, False):
        inventory.budget.spend(len(needs) * (len(needs) + len(rooms)))
        packed = pack_greedily(needs, wanted, rooms, spares_accelerators=spares)
        if packed is not None and num_added(packed, rooms) <= limit:
            return packed
    if len(needs) == 1 or not _could_hold(needs, wanted, rooms, limit):
        return None
    pool = [inventory.mixes.setdefault((tuple(needs), room.members), {}) for room in rooms]
    return cover(needs, wanted, rooms, limit, pool, inventory.budget)


def _could_hold(needs: Sequence[Need], wanted: Mix, rooms: Sequence[Room], limit: int) -> bool:
    """Whether counts and sums allow it: cheap, and settles most of what is impossible."""
    empty = (0,) * len(needs)
    for index, count in enumerate(wanted):
        each = [room.holds(needs, empty, index, count) for room in rooms]
        if count > most_of(each, rooms, limit):
            return False
    for measure in range(len(needs[0].amounts)):
        asked = sum(
            need.amounts[measure] * count for need, count in zip(needs, wanted, strict=True)
        )
        if asked > most_of([room.amounts[measure] for room in rooms], rooms, limit):
            return False
    asked = sum(need.units * count for need, count in zip(needs, wanted, strict=True))
    return asked <= most_of([room.cards * UNITS for room in rooms], rooms, limit)


def _told_apart(packed: Packed, source: Sequence[int], wanted: Mix) -> Packed:
    """Hand the places found for equal needs out to them, in order."""
    if len(set(source)) == len(source):
        return packed
    left = list(wanted)
    apart: Packed = []
    for place, mix, number in packed:
        for _ in range(number):
            free = list(mix)
            own = []
            for index, which in enumerate(source):
                count = min(free[which], left[index])
                free[which] -= count
                left[index] -= count
                own.append(count)
            apart.append((place, tuple(own), 1))
    return apart


def _on_node_types(
    packed: Packed, rooms: Sequence[Room], inventory: Inventory
) -> Iterator[PackedNodes]:
    """Give each node of a room its node type, those that are up first."""
    slots = [
        [[kind, inventory.up[kind], 0] for kind in room.members]
        + [[kind, 0, inventory.extra[kind]] for kind in room.members]
        for room in rooms
    ]
    for place, mix, number in packed:
        free = slots[place]
        while number:
            kind, up, extra = free[0]
            taken = min(number, up or extra)
            if not taken:
                free.pop(0)
                continue
            number -= taken
            yield PackedNodes(kind, mix, up=taken if up else 0, added=0 if up else taken)
            free[0] = [kind, up - taken if up else 0, extra if up else extra - taken]
