"""Where would this run? A proof of placement against the declared node types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kovar.errors import PlacementError, SpecError, UndecidedError
from kovar.resources.alternatives import unseen_request
from kovar.resources.arrangement import Arrangement, arrange
from kovar.resources.budget import Budget
from kovar.resources.cluster import Cluster
from kovar.resources.demand import Demand
from kovar.resources.need import Inventory, Mix, largest, step_of
from kovar.resources.packing import PackedNodes, pack
from kovar.resources.refusal import refusal
from kovar.resources.request import CpuRequest, Request


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one type that hold the same workers.

    Args:
        node_type: its name.
        number: how many there are; a slice of several TPU hosts counts as one.
        num_added: how many of them must be started.
        workers: demand name → workers on each of them.
    """

    node_type: str
    number: int
    num_added: int
    workers: Mapping[str, int]


@dataclass(frozen=True)
class Placement:
    """Which node types take how many workers of each demand.

    Args:
        requests: demand name → what each of its workers gets: one type, a number of GPUs.
        assignments: demand name → node type name → number of workers.
        num_nodes: node type name → nodes in use; a slice of several TPU hosts counts as one.
        num_added: node type name → nodes that must be started for it.
        nodes: the nodes in use, those with the same workers together.
        beyond: demand name → why it waits for nodes that this plan cannot see. Only on a cluster
            that can grow by nodes which it does not list; such a demand is assigned nowhere.
    """

    requests: Mapping[str, Request]
    assignments: Mapping[str, Mapping[str, int]]
    num_nodes: Mapping[str, int]
    num_added: Mapping[str, int]
    nodes: tuple[NodeGroup, ...] = ()
    beyond: Mapping[str, str] = field(default_factory=dict)

    def num_workers(self, demand: str) -> int:
        """Return how many workers of a demand run: from its `num_min` to its `num_max`."""
        return sum(self.assignments[demand].values())

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "requests": {
                name: request.model_dump(mode="json", exclude_defaults=True)
                | {"kind": request.kind}
                for name, request in self.requests.items()
            },
            "assignments": {name: dict(where) for name, where in self.assignments.items()},
            "num_nodes": dict(self.num_nodes),
            "num_added": dict(self.num_added),
            "beyond": dict(self.beyond),
        }


def plan_placement(demands: Sequence[Demand], cluster: Cluster) -> Placement:
    """Place all demands together on a cluster that no one else uses.

    Every demand gets its `num_min`; then each in turn grows as far towards its `num_max` as fits.
    Each is of one accelerator type: the first of its list with which all can be placed. Adding
    nodes stays within each type's `max_count` and the cluster's `max_workers`. On a cluster that
    can grow by nodes that it does not list, a demand which fits nowhere is not refused but listed
    under `beyond`, and the others are placed without it.

    Raises:
        PlacementError: no arrangement holds them; names the field and the nearest change.
        UndecidedError: to find an arrangement or to rule it out takes more work than is allowed.
        ValueError: two demands of one name, or numbers that no spec can hold.
    """
    _check(demands)
    budget = Budget()
    arrangement = arrange(demands, cluster, budget)
    if arrangement is not None:
        return _placement(demands, _grown(demands, arrangement))
    if not cluster.can_grow:
        raise _refusal(demands, cluster, budget)
    return _placed_in_part(demands, cluster, budget)


def as_written(request: Request, *, field: str) -> Request:
    """Return what Ray is asked for when nothing is planned: the first of the types.

    Raises:
        SpecError: GPU memory, where no listed type tells how much of a card that is.
    """
    concrete = unseen_request(request, Cluster(()))
    if concrete is None:
        raise SpecError(
            "without a plan nobody knows what share of a card this is",
            field=f"{field}.gpu_memory",
            hint="name a type, or give count",
        )
    return concrete


def _check(demands: Sequence[Demand]) -> None:
    names = [demand.name for demand in demands]
    if len(set(names)) < len(names):
        raise ValueError(f"demands of one name: {names}")
    for demand in demands:
        step = step_of(demand.request)
        if not 0 < demand.num_min <= demand.num_max or demand.num_min % step:
            raise ValueError(
                f"{demand.name}: {demand.num_min} to {demand.num_max} × {step} workers"
            )


def _refusal(demands: Sequence[Demand], cluster: Cluster, budget: Budget) -> PlacementError:
    """Blame the first demand that is proven not to fit beside those before it.

    That all of them do not fit together is proven already.
    """
    last = len(demands) - 1
    culprit = next(
        index
        for index in range(len(demands))
        if index == last or _is_ruled_out(demands[: index + 1], cluster, budget)
    )
    return refusal(demands[culprit], demands[:culprit], cluster, budget)


def _is_ruled_out(demands: Sequence[Demand], cluster: Cluster, budget: Budget) -> bool:
    try:
        return arrange(demands, cluster, budget) is None
    except UndecidedError:
        return False


def _placed_in_part(demands: Sequence[Demand], cluster: Cluster, budget: Budget) -> Placement:
    """Place each demand in turn that fits beside those before it; the others are beyond.

    Raises:
        PlacementError: no node at all can hold one of the others.
        UndecidedError: the budget was spent before each was decided.
    """
    placed: list[Demand] = []
    left: list[tuple[Demand, list[Demand]]] = []
    arrangement = arrange(placed, cluster, budget)
    for demand in demands:
        more = arrange([*placed, demand], cluster, budget)
        if more is None:
            left.append((demand, list(placed)))
        else:
            placed.append(demand)
            arrangement = more
    assert arrangement is not None  # noqa: S101 - nothing at all has its place everywhere
    seen = _placement(placed, _grown(placed, arrangement))
    # Reasons come last: they may take what is left of the budget.
    beyond = {demand.name: refusal(demand, others, cluster, budget) for demand, others in left}
    return _with_those_beyond(seen, demands, beyond, cluster)


def _with_those_beyond(
    placement: Placement,
    demands: Sequence[Demand],
    beyond: Mapping[str, PlacementError],
    cluster: Cluster,
) -> Placement:
    """Add the demands that wait for nodes which are not listed.

    Raises:
        PlacementError: no node at all can hold one of them.
    """
    requests: dict[str, Request] = {}
    for demand in demands:
        if demand.name in beyond:
            request = unseen_request(demand.request, cluster)
            if request is None or (demand.placement == "strict_pack" and step_of(request) > 1):
                raise beyond[demand.name]
            requests[demand.name] = request
        else:
            requests[demand.name] = placement.requests[demand.name]
    return replace(
        placement,
        requests=requests,
        assignments={name: placement.assignments.get(name, {}) for name in requests},
        beyond={name: error.message for name, error in beyond.items()},
    )


def _grown(demands: Sequence[Demand], start: Arrangement) -> Arrangement:
    """Raise each demand's number of workers in turn as far as it goes; the others keep theirs.

    A number that the budget leaves undecided counts as too large.
    Workers that compute on CPUs start no accelerator node in order to be more.
    """
    arrangement = start
    for index, demand in enumerate(demands):
        step = step_of(demand.request)
        limit = (demand.num_max - demand.num_min) // step
        if limit:
            arrangement = _grown_by(index, step, limit, arrangement, demand)
    return arrangement


def _grown_by(index: int, step: int, limit: int, start: Arrangement, demand: Demand) -> Arrangement:
    inventory = start.inventory
    if isinstance(demand.request, CpuRequest):
        inventory = _without_more_accelerators(start)
    found: dict[int, tuple[Mix, list[PackedNodes]]] = {}

    def holds(groups: int) -> bool:
        more = demand.num_min + groups * step
        numbers = (*start.numbers[:index], more, *start.numbers[index + 1 :])
        try:
            nodes = pack(start.needs, numbers, inventory)
        except UndecidedError:
            return False
        if nodes is not None:
            found[groups] = numbers, nodes
        return nodes is not None

    # Most ranges can be used in full, so that is tried first.
    most = limit if holds(limit) else largest(limit - 1, holds)
    if not most:
        return start
    numbers, nodes = found[most]
    return replace(start, numbers=numbers, nodes=nodes)


def _without_more_accelerators(arrangement: Arrangement) -> Inventory:
    """Let nodes with accelerators be only those that are up or in use already."""
    inventory = arrangement.inventory
    used: dict[int, int] = {}
    for node in arrangement.nodes:
        used[node.kind] = used.get(node.kind, 0) + node.added
    return inventory.with_extra(
        {
            number: used.get(number, 0)
            for number, kind in enumerate(inventory.kinds)
            if kind.accelerator
        }
    )


def _placement(demands: Sequence[Demand], arrangement: Arrangement) -> Placement:
    names = [demand.name for demand in demands]
    assignments: dict[str, dict[str, int]] = {name: {} for name in names}
    num_nodes: dict[str, int] = {}
    num_added: dict[str, int] = {}
    groups: dict[tuple[int, Mix], tuple[int, int]] = {}
    for node in arrangement.nodes:
        up, added = groups.get((node.kind, node.mix), (0, 0))
        groups[node.kind, node.mix] = up + node.up, added + node.added
    nodes = []
    for (number, mix), (up, added) in sorted(groups.items()):
        where = arrangement.inventory.kinds[number].name
        num_nodes[where] = num_nodes.get(where, 0) + up + added
        if added:
            num_added[where] = num_added.get(where, 0) + added
        workers = {name: count for name, count in zip(names, mix, strict=True) if count}
        for name, count in workers.items():
            assignments[name][where] = assignments[name].get(where, 0) + count * (up + added)
        nodes.append(NodeGroup(where, up + added, added, workers))
    requests = dict(zip(names, arrangement.requests, strict=True))
    return Placement(requests, assignments, num_nodes, num_added, tuple(nodes))
