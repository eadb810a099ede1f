"""What a plan costs: prices of the nodes that it uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kovar.resources.cluster import Cluster
from kovar.resources.plan import Placement


@dataclass(frozen=True)
class Cost:
    """US dollars per hour for whole nodes, shared ones included.

    Args:
        per_hour: None when a node type that is used declares no price, or is not known.
        unpriced: those node types.
        shared_with: other demands on the same nodes.
    """

    per_hour: float | None
    unpriced: tuple[str, ...] = ()
    shared_with: tuple[str, ...] = ()

    def over(self, seconds: float) -> float | None:
        """Return the US dollars for so many seconds."""
        return None if self.per_hour is None else self.per_hour * seconds / 3600


def cost_of(placement: Placement, cluster: Cluster, demand: str | None = None) -> Cost:
    """Price the nodes that hold a demand, or all nodes in use with those that are always up."""
    prices = {kind.name: kind.price_per_hour for kind in cluster.node_types}
    if demand is None:
        counts = {kind.name: kind.min_count for kind in cluster.node_types}
        for name, number in placement.num_nodes.items():
            counts[name] = max(counts[name], number)
        return _summed(counts.items(), prices)
    if demand in placement.beyond:
        return Cost(None)
    holding = [group for group in placement.nodes if group.workers.get(demand)]
    others = dict.fromkeys(
        name for group in holding for name, number in group.workers.items() if number
    )
    cost = _summed(((group.node_type, group.number) for group in holding), prices)
    return Cost(cost.per_hour, cost.unpriced, tuple(name for name in others if name != demand))


def _summed(counts: Iterable[tuple[str, int]], prices: dict[str, float | None]) -> Cost:
    used = [(name, number) for name, number in counts if number]
    unpriced = tuple(dict.fromkeys(name for name, _ in used if prices[name] is None))
    if unpriced:
        return Cost(None, unpriced)
    return Cost(sum((prices[name] or 0.0) * number for name, number in used))
