"""Placing work of which some may take turns: the trials of a sweep on several kinds of hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kovar.errors import PlacementError
from kovar.resources.cluster import Cluster
from kovar.resources.demand import Demand
from kovar.resources.plan import Placement, plan_placement


def plan_in_turn(works: Sequence[Sequence[Demand]], cluster: Cluster) -> Placement:
    """Place works together; the demands of one work all at once, or else one after the other.

    Args:
        works: each is one demand, or several that may take turns.
        cluster: where.

    Returns:
        One placement. Of demands that take turns it counts the nodes that each of them needs.

    Raises:
        PlacementError: not even one demand of each work fits beside the others.
    """
    try:
        return plan_placement([demand for work in works for demand in work], cluster)
    except PlacementError:
        num_turns = max(map(len, works))
        if num_turns == 1:
            raise
    turns = [[work[min(turn, len(work) - 1)] for work in works] for turn in range(num_turns)]
    return _merged([plan_placement(demands, cluster) for demands in turns])


def _merged(placements: Sequence[Placement]) -> Placement:
    """Count every demand where it is placed first, and as many nodes as the largest turn needs."""
    first, *others = placements
    requests, assignments = dict(first.requests), dict(first.assignments)
    nodes, beyond = list(first.nodes), dict(first.beyond)
    for other in others:
        new = other.requests.keys() - requests.keys()
        requests |= {name: other.requests[name] for name in new}
        assignments |= {name: other.assignments[name] for name in new}
        beyond |= {name: other.beyond[name] for name in new & other.beyond.keys()}
        nodes += [group for group in other.nodes if new & group.workers.keys()]
    return Placement(
        requests,
        assignments,
        _largest([one.num_nodes for one in placements]),
        _largest([one.num_added for one in placements]),
        tuple(nodes),
        beyond,
    )


def _largest(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for one in counts for name in one)
    return {name: max(one.get(name, 0) for one in counts) for name in names}
