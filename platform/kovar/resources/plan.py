"""Where would this run? A proof of placement against the declared node types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kovar.resources.cluster import Cluster
from kovar.resources.demand import Demand
from kovar.resources.packing import Mix, PackedNode, largest, num_added, pack, step_of
from kovar.resources.refusal import refusal
from kovar.resources.request import CpuRequest, Request


@dataclass(frozen=True)
class Placement:
    """Which node types take how many workers of each demand.

    Args:
        requests: demand name → what each of its workers gets: one type, a number of GPUs.
        assignments: demand name → node type name → number of workers.
        num_nodes: node type name → nodes in use; a slice of several TPU hosts counts as one.
        num_added: node type name → nodes that must be started for it.
    """

    requests: Mapping[str, Request]
    assignments: Mapping[str, Mapping[str, int]]
    num_nodes: Mapping[str, int]
    num_added: Mapping[str, int]

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
        }


def plan_placement(demands: Sequence[Demand], cluster: Cluster) -> Placement:
    """Place all demands together on a cluster that no one else uses.

    Every demand gets its `num_min`; then each in turn grows as far towards its `num_max` as fits.
    Adding nodes stays within each type's `max_count` and the cluster's `max_workers`.

    Raises:
        PlacementError: no arrangement holds them; names the field and the nearest change.
        ValueError: two demands of one name, or numbers that no spec can hold.
    """
    names = [demand.name for demand in demands]
    if len(set(names)) < len(names):
        raise ValueError(f"demands of one name: {names}")
    for demand in demands:
        step = step_of(demand.request)
        if not 0 < demand.num_min <= demand.num_max or demand.num_min % step:
            raise ValueError(
                f"{demand.name}: {demand.num_min} to {demand.num_max} × {step} workers"
            )
    requests = [demand.request for demand in demands]
    least = tuple(demand.num_min for demand in demands)
    nodes: Sequence[PackedNode] | None = pack(requests, least, cluster)
    if nodes is None:
        culprit = next(
            index
            for index in range(len(demands))
            if pack(requests[: index + 1], least[: index + 1], cluster) is None
        )
        raise refusal(demands[culprit], demands[:culprit], cluster)
    numbers = least
    for index in range(len(demands)):
        numbers, nodes = _grown(index, numbers, nodes, demands, cluster)
    return _placement(demands, nodes)


def _grown(
    index: int,
    numbers: Mix,
    nodes: Sequence[PackedNode],
    demands: Sequence[Demand],
    cluster: Cluster,
) -> tuple[Mix, Sequence[PackedNode]]:
    """Raise one demand's number of workers as far as it goes; the others keep theirs.

    Workers that compute on CPUs start no accelerator node in order to be more.
    """
    demand = demands[index]
    step = step_of(demand.request)
    limit = (demand.num_max - demand.num_min) // step
    if not limit:
        return numbers, nodes
    if isinstance(demand.request, CpuRequest):
        used = Counter(node.node_type.name for node in nodes)
        no_more = tuple(
            replace(kind, max_count=max(kind.min_count, used[kind.name]))
            if kind.accelerator
            else kind
            for kind in cluster.node_types
        )
        cluster = replace(cluster, node_types=no_more)

    def tried(groups: int) -> tuple[Mix, Sequence[PackedNode] | None]:
        more = (*numbers[:index], demand.num_min + groups * step, *numbers[index + 1 :])
        return more, pack([one.request for one in demands], more, cluster)

    most, found = tried(largest(limit, lambda groups: tried(groups)[1] is not None))
    return (numbers, nodes) if found is None else (most, found)


def _placement(demands: Sequence[Demand], nodes: Sequence[PackedNode]) -> Placement:
    names = [demand.name for demand in demands]
    requests = {demand.name: demand.request for demand in demands}
    assignments: dict[str, dict[str, int]] = {name: {} for name in names}
    num_nodes: dict[str, int] = {}
    for node in nodes:
        where = node.node_type.name
        num_nodes[where] = num_nodes.get(where, 0) + 1
        for name, count in zip(names, node.mix, strict=True):
            if count:
                assignments[name][where] = assignments[name].get(where, 0) + count
    return Placement(requests, assignments, num_nodes, num_added(nodes))
