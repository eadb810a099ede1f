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
from kovar.resources.need import Inventory, Mix, Need, Room

Packed = list[tuple[Room, Mix, int]]
"""Rooms, what each node in use holds, and how many nodes hold so much."""


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
    """
    different, totals, source = _merged(needs, wanted)
    packed = _pack_different(different, totals, inventory)
    if packed is None:
        return None
    return list(_on_node_types(_told_apart(packed, source, wanted), inventory))


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


def _pack_different(needs: Sequence[Need], wanted: Mix, inventory: Inventory) -> Packed | None:
    rooms = inventory.rooms(needs)
    limit = inventory.most_added
    for spares_accelerators in (True, False):
        packed = _pack_greedily(needs, wanted, rooms, spares_accelerators=spares_accelerators)
        if packed is not None and _num_added(packed) <= limit:
            return packed
    if not _could_hold(needs, wanted, rooms, limit):
        return None
    found: Packed = []
    for group in _groups(needs, rooms):
        part = _pack_group([needs[i] for i in group], tuple(wanted[i] for i in group), inventory)
        if part is None:
            return None
        places = {index: place for place, index in enumerate(group)}
        found += [
            (room, tuple(mix[places[i]] if i in places else 0 for i in range(len(needs))), number)
            for room, mix, number in part
        ]
    return found if _num_added(found) <= limit else None


def _pack_group(needs: Sequence[Need], wanted: Mix, inventory: Inventory) -> Packed | None:
    """Place needs that compete for the same nodes, adding the fewest nodes possible."""
    rooms = inventory.rooms(needs)
    if len(needs) == 1:
        # Nothing competes: the nodes that are up and then the largest are the fewest.
        return _pack_greedily(needs, wanted, rooms, spares_accelerators=False)
    return cover(needs, wanted, rooms)


def _pack_greedily(
    needs: Sequence[Need], wanted: Mix, rooms: Sequence[Room], *, spares_accelerators: bool
) -> Packed | None:
    """First fit, the most demanding needs first; finding nothing proves nothing."""
    opened: list[tuple[int, Mix, int]] = []
    free = [[room.up, room.extra] for room in rooms]
    empty = (0,) * len(needs)
    for index in sorted(range(len(needs)), key=lambda i: _hardness(needs[i]), reverse=True):
        left, opened = _fill(rooms, needs, opened, index, wanted[index])
        uses_cpus_alone = not (needs[index].gpus or needs[index].share)
        while left:
            best = min(
                (
                    (
                        extra,
                        room.idle if uses_cpus_alone and spares_accelerators else 0,
                        -each,
                        room.price,
                        room.idle,
                        place,
                    )
                    for place, room in enumerate(rooms)
                    for extra in (0, 1)
                    if free[place][extra] and (each := room.holds(needs, empty, index, left))
                ),
                default=None,
            )
            if best is None:
                return None
            extra, _, negative, _, _, place = best
            each = -negative
            number = min(free[place][extra], left // each)
            free[place][extra] -= number
            opened.append((place, _plus(empty, index, each), number))
            left -= number * each
    return [(rooms[place], mix, number) for place, mix, number in opened]


def _fill(
    rooms: Sequence[Room],
    needs: Sequence[Need],
    opened: Sequence[tuple[int, Mix, int]],
    index: int,
    left: int,
) -> tuple[int, list[tuple[int, Mix, int]]]:
    """Put workers of one need onto nodes that are in use; return how many are left over."""
    after: list[tuple[int, Mix, int]] = []
    for place, mix, number in opened:
        each = rooms[place].holds(needs, mix, index, left) if left else 0
        full = min(number, left // each) if each else 0
        if full:
            after.append((place, _plus(mix, index, each), full))
            left -= full * each
        rest = number - full
        if rest and left and each:
            # One more node takes what is left, which is less than it could.
            some = rooms[place].holds(needs, mix, index, left)
            if some:
                after.append((place, _plus(mix, index, some), 1))
                left -= some
                rest -= 1
        if rest:
            after.append((place, mix, rest))
    return left, after


def _plus(mix: Mix, index: int, count: int) -> Mix:
    return (*mix[:index], mix[index] + count, *mix[index + 1 :])


def _hardness(need: Need) -> tuple[bool, bool, int, int, tuple[int, ...]]:
    return need.step > 1, need.together, need.gpus, need.share, need.amounts


def _num_added(packed: Packed) -> int:
    used: dict[int, int] = {}
    rooms: dict[int, Room] = {}
    for room, _, number in packed:
        used[id(room)] = used.get(id(room), 0) + number
        rooms[id(room)] = room
    return sum(max(0, number - rooms[key].up) for key, number in used.items())


def _could_hold(needs: Sequence[Need], wanted: Mix, rooms: Sequence[Room], limit: int) -> bool:
    """Whether counts and sums allow it: cheap, and settles most of what is impossible."""
    empty = (0,) * len(needs)
    for index, count in enumerate(wanted):
        each = [room.holds(needs, empty, index, count) for room in rooms]
        if count > _most(each, rooms, limit):
            return False
    for measure in range(len(needs[0].amounts)):
        asked = sum(
            need.amounts[measure] * count for need, count in zip(needs, wanted, strict=True)
        )
        if asked > _most([room.amounts[measure] for room in rooms], rooms, limit):
            return False
    asked = sum(need.units * count for need, count in zip(needs, wanted, strict=True))
    return asked <= _most([room.cards * UNITS for room in rooms], rooms, limit)


def _most(each: Sequence[int], rooms: Sequence[Room], limit: int) -> int:
    """Add up what the nodes hold if each holds so much and at most `limit` nodes are added."""
    total = sum(value * room.up for value, room in zip(each, rooms, strict=True))
    for value, extra in sorted(
        ((value, room.extra) for value, room in zip(each, rooms, strict=True)), reverse=True
    ):
        total += value * min(extra, limit)
        limit -= min(extra, limit)
    return total


def _groups(needs: Sequence[Need], rooms: Sequence[Room]) -> list[list[int]]:
    """Split needs into groups that compete for no room; each group packs by itself."""
    groups: list[tuple[set[int], list[int]]] = []
    for index in range(len(needs)):
        places = {place for place, room in enumerate(rooms) if room.takes[index]}
        members = [index]
        for other in [group for group in groups if group[0] & places]:
            groups.remove(other)
            places |= other[0]
            members = other[1] + members
        groups.append((places, members))
    return [sorted(members) for _, members in groups]


def _told_apart(packed: Packed, source: Sequence[int], wanted: Mix) -> Packed:
    """Hand the places found for equal needs out to them, in order."""
    if len(set(source)) == len(source):
        return packed
    left = list(wanted)
    apart: Packed = []
    for room, mix, number in packed:
        for _ in range(number):
            free = list(mix)
            own = []
            for index, place in enumerate(source):
                count = min(free[place], left[index])
                free[place] -= count
                left[index] -= count
                own.append(count)
            apart.append((room, tuple(own), 1))
    return apart


def _on_node_types(packed: Packed, inventory: Inventory) -> Iterator[PackedNodes]:
    """Give each node of a room its node type, those that are up first."""
    slots: dict[int, list[list[int]]] = {}
    for room, mix, number in packed:
        free = slots.setdefault(
            id(room),
            [[kind, inventory.up[kind], 0] for kind in room.members]
            + [[kind, 0, inventory.extra[kind]] for kind in room.members],
        )
        while number:
            kind, up, extra = free[0]
            taken = min(number, up or extra)
            if not taken:
                free.pop(0)
                continue
            number -= taken
            yield PackedNodes(kind, mix, up=taken if up else 0, added=0 if up else taken)
            free[0] = [kind, up - taken if up else 0, extra if up else extra - taken]
