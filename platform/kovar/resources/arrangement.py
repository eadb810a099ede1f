"""The first of all combinations of alternatives with which every demand has its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

from kovar.resources.alternatives import concrete_requests
from kovar.resources.budget import Budget
from kovar.resources.cards import UNITS
from kovar.resources.cluster import Cluster
from kovar.resources.demand import Demand
from kovar.resources.need import Inventory, Mix, Need
from kovar.resources.packing import PackedNodes, pack
from kovar.resources.request import GpuRequest, Request


@dataclass(frozen=True)
class Arrangement:
    """Where the workers of some demands are.

    Args:
        requests: for each demand what each of its workers is given.
        needs: the same in whole numbers.
        numbers: for each demand its number of workers.
        nodes: the nodes in use.
        inventory: the nodes that there are.
    """

    requests: tuple[Request, ...]
    needs: tuple[Need, ...]
    numbers: Mix
    nodes: list[PackedNodes]
    inventory: Inventory


@dataclass(frozen=True)
class _Option:
    request: Request
    need: Need


def arrange(
    demands: Sequence[Demand], cluster: Cluster, budget: Budget | None = None
) -> Arrangement | None:
    """Place the `num_min` workers of all demands; None when no combination of types holds them.

    Each demand is of one accelerator type. The combination is the lexicographically first in the
    order of the demands, each with its alternatives in order of preference. A request that names
    no GPU type prefers the type whose nodes cost least to add for it alone, unknown prices last.

    Args:
        demands: what is to be placed.
        cluster: where.
        budget: the work that this and growing the arrangement may take, a whole one when absent.

    Raises:
        UndecidedError: the budget was spent before a combination was found, or none proven to be.
    """
    concrete = [concrete_requests(demand.request, cluster) for demand in demands]
    every = [request for requests in concrete for request in requests]
    inventory = Inventory(cluster, every, budget)
    numbers = tuple(demand.num_min for demand in demands)
    options = [
        _options(demand, requests, inventory)
        for demand, requests in zip(demands, concrete, strict=True)
    ]
    if not all(options):
        return None
    found = _Search(options, numbers, inventory).first()
    if found is None:
        return None
    chosen, nodes = found
    return Arrangement(
        tuple(option.request for option in chosen),
        tuple(option.need for option in chosen),
        numbers,
        nodes,
        inventory,
    )


def _options(demand: Demand, requests: Sequence[Request], inventory: Inventory) -> list[_Option]:
    """List the alternatives that hold a demand by itself, in order of preference."""
    options: list[_Option] = []
    costs: list[float] = []
    for request in requests:
        need = inventory.need(request, demand.placement)
        if any(_is_covered(need, other.need) for other in options):
            continue
        if len(requests) == 1:
            return [_Option(request, need)] if need.places else []
        nodes = pack([need], (demand.num_min,), inventory) if need.places else None
        if nodes is not None:
            options.append(_Option(request, need))
            costs.append(_cost(nodes, inventory))
    if isinstance(demand.request, GpuRequest) and not demand.request.type:
        order = sorted(range(len(options)), key=lambda index: costs[index])
        options = [options[index] for index in order]
    return options


def _is_covered(need: Need, earlier: Need) -> bool:
    """Whether an earlier alternative holds whatever this one holds."""
    return not need.places & ~earlier.places and replace(need, places=earlier.places) == earlier


def _cost(nodes: Sequence[PackedNodes], inventory: Inventory) -> float:
    """Add up the price per hour of the added nodes; infinite when one is not declared."""
    prices = [(inventory.kinds[node.kind].price_per_hour, node.added) for node in nodes]
    return sum((float("inf") if price is None else price) * n for price, n in prices if n)


class _Search:
    """Depth first, in order of preference; what cannot be completed is left at once.

    Before an alternative is followed, the demands that are still undecided are given the best of
    all their alternatives on every node. Where even that fails, no combination succeeds.
    """

    def __init__(self, options: list[list[_Option]], numbers: Mix, inventory: Inventory) -> None:
        self.options, self.numbers, self.inventory = options, numbers, inventory
        self.relaxed = [reduce(_relaxed, [one.need for one in several]) for several in options]
        self.failed: set[frozenset[tuple[Need, int, int]]] = set()

    def first(
        self, chosen: tuple[_Option, ...] = ()
    ) -> tuple[tuple[_Option, ...], list[PackedNodes]] | None:
        """Return the first complete combination that begins with the chosen ones."""
        depth = len(chosen)
        if depth:
            self.inventory.budget.check()
        rest = self.relaxed[depth:]
        nodes = pack([*(one.need for one in chosen), *rest], self.numbers, self.inventory)
        if nodes is None:
            return None
        if all(len(several) == 1 for several in self.options[depth:]):
            return (*chosen, *(several[0] for several in self.options[depth:])), nodes
        # Demands that changed places with an equal one fail alike.
        state = self._state(chosen)
        if state in self.failed:
            return None
        for option in self.options[depth]:
            found = self.first((*chosen, option))
            if found is not None:
                return found
        self.failed.add(state)
        return None

    def _state(self, chosen: Sequence[_Option]) -> frozenset[tuple[Need, int, int]]:
        totals: dict[tuple[Need, int], int] = {}
        for option, number in zip(chosen, self.numbers, strict=False):
            key = option.need, number
            totals[key] = totals.get(key, 0) + 1
        return frozenset((*key, count) for key, count in totals.items())


def _relaxed(one: Need, other: Need) -> Need:
    """Return a need that is met wherever one of the two is met, and perhaps elsewhere."""
    units = min(one.units, other.units)
    return replace(
        one,
        places=one.places | other.places,
        amounts=tuple(map(min, one.amounts, other.amounts)),
        gpus=units // UNITS,
        share=units % UNITS,
    )
