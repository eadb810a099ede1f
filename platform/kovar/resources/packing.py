"""Fitting groups of equal workers onto nodes: exact, all or nothing.

Workers of one request are alike and nodes of one type are alike, so a solution is counted, not
enumerated: how many nodes of a type hold which mix of workers. A quick greedy pass finds most
solutions, and sums rule out most of what is impossible; a mixed-integer program decides the rest.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kovar.resources.cluster import Cluster
from kovar.resources.node_type import NodeType
from kovar.resources.request import CpuRequest, GpuRequest, Request, TpuRequest

_UNITS = 10_000
"""Ray counts resources in ten-thousandths; whole numbers keep the sums exact."""

Mix = tuple[int, ...]
"""How many workers of each request, in the order of the requests."""


@dataclass(frozen=True)
class PackedNode:
    """One node that is in use, and the workers on it."""

    node_type: NodeType
    mix: Mix


def matches(node_type: NodeType, request: Request) -> bool:
    """Whether a node type has the kind of accelerator that is asked for, in any number."""
    match request:
        case GpuRequest():
            return node_type.num_gpus > 0 and (
                not request.type or not {*request.type}.isdisjoint(node_type.gpu_types)
            )
        case TpuRequest():
            return node_type.tpu_type in request.type and node_type.tpu_topology == request.topology
        case CpuRequest():
            # Hosts of a large slice are reserved together; no stranger may hold one of them.
            return node_type.num_hosts == 1


def fits(node_type: NodeType, requests: Sequence[Request], mix: Mix) -> bool:
    """Whether one node holds a mix of workers; a node of several hosts takes one slice's worth."""
    wanted = [(request, count) for request, count in zip(requests, mix, strict=True) if count]
    if not all(matches(node_type, request) for request, _ in wanted):
        return False
    slices = sum(count for request, count in wanted if isinstance(request, TpuRequest))
    if slices not in (0, node_type.num_hosts):
        return False
    hosts = node_type.num_hosts
    if sum(_units(request.cpus) * count for request, count in wanted) > (
        _units(node_type.cpus) * hosts
    ):
        return False
    memory = sum((request.memory or 0) * count for request, count in wanted)
    if memory > (node_type.memory_bytes or 0) * hosts:
        return False
    gpus = [(request.count, count) for request, count in wanted if isinstance(request, GpuRequest)]
    whole = sum(int(size) * count for size, count in gpus if size >= 1)
    shares = tuple(sorted((_units(size), count) for size, count in gpus if size < 1))
    return _shares_fit(shares, node_type.num_gpus - whole)


def _units(amount: float) -> int:
    return round(amount * _UNITS)


@lru_cache(maxsize=4096)
def _shares_fit(shares: tuple[tuple[int, int], ...], num_cards: int) -> bool:
    """Whether shares, as (units, count), fit on so many cards; no share is split over two."""
    shares = tuple((size, count) for size, count in shares if count)
    if num_cards < 0 or sum(size * count for size, count in shares) > num_cards * _UNITS:
        return False
    if len(shares) <= 1:
        return not shares or shares[0][1] <= num_cards * (_UNITS // shares[0][0])
    # The card that holds one of the largest shares may as well be filled next, and be full.
    largest, count = shares[-1]
    rest = (*shares[:-1], (largest, count - 1))
    return any(
        _shares_fit(left, num_cards - 1) for left in _after_filling_a_card(rest, _UNITS - largest)
    )


def _after_filling_a_card(
    shares: tuple[tuple[int, int], ...], room: int
) -> Iterator[tuple[tuple[int, int], ...]]:
    if not shares:
        yield ()
        return
    size, count = shares[-1]
    for taken in range(min(count, room // size), -1, -1):
        for rest in _after_filling_a_card(shares[:-1], room - taken * size):
            yield (*rest, (size, count - taken))


def step_of(request: Request) -> int:
    """Return how many workers come at once: the hosts of a TPU slice, otherwise one."""
    return request.num_hosts if isinstance(request, TpuRequest) else 1


def most_on_one_node(
    node_type: NodeType, requests: Sequence[Request], mix: Mix, index: int, limit: int
) -> int:
    """Return how many workers of one request fit beside a mix, at most `limit`."""
    step = step_of(requests[index])
    return step * largest(
        limit // step, lambda count: fits(node_type, requests, _plus(mix, index, count * step))
    )


def largest(limit: int, holds: Callable[[int], bool]) -> int:
    """Return the largest number up to `limit` that holds, when 0 does and so on up to it."""
    return bisect_left(range(1, limit + 1), True, key=lambda number: not holds(number))


def smallest(limit: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest number from 0 that holds, as all above it do; `limit` if none below."""
    return bisect_left(range(limit), True, key=holds)


def _plus(mix: Mix, index: int, count: int) -> Mix:
    return (*mix[:index], mix[index] + count, *mix[index + 1 :])


def pack(requests: Sequence[Request], wanted: Mix, cluster: Cluster) -> list[PackedNode] | None:
    """Place all the wanted workers, or return None when no arrangement holds them all."""
    different = list(dict.fromkeys(requests))
    together = tuple(
        sum(count for request, count in zip(requests, wanted, strict=True) if request == kind)
        for kind in different
    )
    nodes = _pack_different(different, together, cluster)
    return None if nodes is None else _told_apart(nodes, different, requests, wanted)


def _pack_different(
    requests: Sequence[Request], wanted: Mix, cluster: Cluster
) -> list[PackedNode] | None:
    node_types, limit = cluster.node_types, _most_added(cluster)
    greedy = _pack_greedily(requests, wanted, node_types)
    if greedy is not None and _total_added(greedy) <= limit:
        return greedy
    if not _could_hold(requests, wanted, node_types):
        return None
    found: list[PackedNode] = []
    for group in _groups(requests, node_types):
        part = _pack_exactly(
            [requests[index] for index in group],
            tuple(wanted[index] for index in group),
            node_types,
        )
        if part is None:
            return None
        found += [
            PackedNode(
                node.node_type,
                tuple(
                    node.mix[group.index(index)] if index in group else 0
                    for index in range(len(requests))
                ),
            )
            for node in part
        ]
    return found if _total_added(found) <= limit else None


def _told_apart(
    nodes: Sequence[PackedNode],
    different: Sequence[Request],
    requests: Sequence[Request],
    wanted: Mix,
) -> list[PackedNode]:
    """Hand the places found for equal requests out to them, in order."""
    left = list(wanted)
    apart = []
    for node in nodes:
        free = dict(zip(different, node.mix, strict=True))
        mix = []
        for index, request in enumerate(requests):
            count = min(free[request], left[index])
            free[request] -= count
            left[index] -= count
            mix.append(count)
        apart.append(PackedNode(node.node_type, tuple(mix)))
    return apart


def _most_added(cluster: Cluster) -> int:
    """Nodes that the cluster's own limit lets it add to those that are always up."""
    kinds = cluster.node_types
    if cluster.max_workers is None:
        return sum(kind.max_count for kind in kinds)
    return cluster.max_workers - sum(kind.min_count - kind.is_head for kind in kinds)


def num_added(nodes: Sequence[PackedNode]) -> dict[str, int]:
    """Count the nodes beyond those that are always up, by node type."""
    used: dict[str, int] = {}
    always_up = {node.node_type.name: node.node_type.min_count for node in nodes}
    for node in nodes:
        used[node.node_type.name] = used.get(node.node_type.name, 0) + 1
    return {
        name: count - always_up[name] for name, count in used.items() if count > always_up[name]
    }


def _total_added(nodes: Sequence[PackedNode]) -> int:
    return sum(num_added(nodes).values())


def _preferred(request: Request, node_types: Sequence[NodeType]) -> list[NodeType]:
    """Order node types: none with an idle accelerator while another will do, then as declared."""
    usable = [kind for kind in node_types if matches(kind, request)]
    if isinstance(request, CpuRequest):
        return sorted(usable, key=lambda kind: kind.accelerator is not None)
    return sorted(usable, key=lambda kind: kind.num_gpus)


def _pack_greedily(
    requests: Sequence[Request], wanted: Mix, node_types: Sequence[NodeType]
) -> list[PackedNode] | None:
    """First fit, the most demanding requests first; finding nothing proves nothing."""
    nodes: dict[str, list[Mix]] = {kind.name: [] for kind in node_types}
    empty = (0,) * len(requests)
    for index in sorted(range(len(requests)), key=lambda i: _hardness(requests[i]), reverse=True):
        left = wanted[index]
        for kind in _preferred(requests[index], node_types):
            opened = nodes[kind.name]
            for place, mix in enumerate(opened):
                more = most_on_one_node(kind, requests, mix, index, left)
                opened[place] = _plus(mix, index, more)
                left -= more
            each = most_on_one_node(kind, requests, empty, index, left)
            while left and each and len(opened) < kind.max_count:
                opened.append(_plus(empty, index, min(each, left)))
                left -= min(each, left)
        if left:
            return None
    return [PackedNode(kind, mix) for kind in node_types for mix in nodes[kind.name] if any(mix)]


def _hardness(request: Request) -> tuple[float, float, int]:
    accelerators = {"cpu": 0.0, "gpu": 1.0, "tpu": 1e6}[request.kind]
    if isinstance(request, GpuRequest):
        accelerators += request.count
    return accelerators, request.cpus, request.memory or 0


def _could_hold(requests: Sequence[Request], wanted: Mix, node_types: Sequence[NodeType]) -> bool:
    """Whether the sums of CPUs, memory and GPUs allow it: cheap, and settles most refusals."""
    for request, count in zip(requests, wanted, strict=True):
        if count and not any(matches(kind, request) and kind.max_count for kind in node_types):
            return False
    usable = [kind for kind in node_types if any(matches(kind, request) for request in requests)]
    pairs = list(zip(requests, wanted, strict=True))
    totals: tuple[tuple[float, float], ...] = (
        (
            sum(_units(request.cpus) * count for request, count in pairs),
            sum(_units(kind.cpus) * kind.num_hosts * kind.max_count for kind in usable),
        ),
        (
            sum((request.memory or 0) * count for request, count in pairs),
            sum((kind.memory_bytes or 0) * kind.num_hosts * kind.max_count for kind in usable),
        ),
        (
            sum(
                _units(request.count) * count
                for request, count in pairs
                if isinstance(request, GpuRequest)
            ),
            sum(kind.num_gpus * _UNITS * kind.max_count for kind in usable),
        ),
    )
    return all(needed <= there for needed, there in totals)


def _groups(requests: Sequence[Request], node_types: Sequence[NodeType]) -> list[list[int]]:
    """Split requests into groups that compete for no node type; each group packs by itself."""
    groups: list[tuple[set[str], list[int]]] = []
    for index, request in enumerate(requests):
        names = {kind.name for kind in node_types if matches(kind, request)}
        members = [index]
        for other in [group for group in groups if group[0] & names]:
            groups.remove(other)
            names |= other[0]
            members = other[1] + members
        groups.append((names, members))
    return [sorted(members) for _, members in groups]


def _pack_alone(
    request: Request, wanted: int, node_types: Sequence[NodeType]
) -> list[PackedNode] | None:
    """Place workers of one request on the fewest added nodes: those that are up, then the largest.

    Nothing competes with them, so counting how many fit on each node is exact.
    """
    each = {kind.name: most_on_one_node(kind, [request], (0,), 0, wanted) for kind in node_types}
    usable = sorted(
        (kind for kind in node_types if each[kind.name]), key=lambda kind: -each[kind.name]
    )
    places = itertools.chain(
        (kind for kind in usable for _ in range(kind.min_count)),
        (kind for kind in usable for _ in range(kind.max_count - kind.min_count)),
    )
    nodes = []
    while wanted:
        kind = next(places, None)
        if kind is None:
            return None
        count = min(each[kind.name], wanted)
        nodes.append(PackedNode(kind, (count,)))
        wanted -= count
    return nodes


def _pack_exactly(
    requests: Sequence[Request], wanted: Mix, node_types: Sequence[NodeType]
) -> list[PackedNode] | None:
    """Choose how many nodes of each type hold which mix, adding the fewest nodes possible.

    This is Gilmore and Gomory's cutting-stock model, solved as a mixed-integer program.
    """
    if len(requests) == 1:
        return _pack_alone(requests[0], wanted[0], node_types)
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp

    columns = [(kind, mix) for kind in node_types for mix in _full_mixes(kind, requests, wanted)]
    if not columns:
        return None
    # The unknowns: how many nodes hold each mix, then how many nodes of each type are added.
    held = np.array([mix for _, mix in columns]).T
    of_type = np.array([[kind is one for kind, _ in columns] for one in node_types], dtype=int)
    num_types = len(node_types)
    added = np.eye(num_types, dtype=int)
    solution = milp(
        c=[0] * len(columns) + [1] * num_types,
        integrality=1,
        bounds=Bounds(
            0,
            [kind.max_count for kind, _ in columns]
            + [kind.max_count - kind.min_count for kind in node_types],
        ),
        constraints=[
            LinearConstraint(np.hstack([held, np.zeros((len(requests), num_types))]), lb=wanted),
            LinearConstraint(
                np.hstack([of_type, -added]), ub=[kind.min_count for kind in node_types]
            ),
        ],
    )
    if solution.x is None:
        return None
    return _counted_out(zip(columns, solution.x.round().astype(int), strict=False), wanted)


def _counted_out(
    chosen: Iterable[tuple[tuple[NodeType, Mix], int]], wanted: Mix
) -> list[PackedNode] | None:
    """List the chosen nodes without the workers beyond those wanted; None if some are missing.

    The solver computes in floating point; counting in whole numbers is what proves its answer.
    """
    left = list(wanted)
    nodes = []
    for (kind, full), number in chosen:
        for _ in range(number):
            mix = tuple(min(count, rest) for count, rest in zip(full, left, strict=True))
            left = [rest - count for rest, count in zip(left, mix, strict=True)]
            if any(mix):
                nodes.append(PackedNode(kind, mix))
    return None if any(left) else nodes


def _full_mixes(kind: NodeType, requests: Sequence[Request], wanted: Mix) -> list[Mix]:
    """List the mixes that a node of this type can hold, with as many of the last as still fit."""
    mixes: list[Mix] = [()]
    for index, request in enumerate(requests):
        rest = (0,) * (len(requests) - index)
        step = step_of(request)
        grown: list[Mix] = []
        for mix in mixes:
            most = most_on_one_node(kind, requests, (*mix, *rest), index, wanted[index])
            counts = [most] if index == len(requests) - 1 else range(0, most + 1, step)
            grown += [(*mix, count) for count in counts]
        mixes = grown
    return [mix for mix in mixes if any(mix)]
