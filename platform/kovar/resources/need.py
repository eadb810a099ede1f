"""Requests and node types in whole numbers, so that a plan is exact and quick."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from kovar.resources.budget import Budget
from kovar.resources.cards import UNITS, num_cards
from kovar.resources.cluster import Cluster
from kovar.resources.label import selected
from kovar.resources.node_type import NodeType
from kovar.resources.request import (
    CpuRequest,
    GpuRequest,
    PlacementStrategy,
    Request,
    TpuRequest,
)

Mix = tuple[int, ...]
"""How many workers of each need, in the order of the needs."""


@dataclass(frozen=True, slots=True)
class Need:
    """What each worker of a demand takes from its node.

    Args:
        places: the groups of like node types that hold one such worker, a bit for each.
        amounts: of each measure of the inventory.
        gpus: whole cards.
        share: ten-thousandths of one card.
        step: how many workers come at once: the hosts of a TPU slice, otherwise one.
        at_most_one: no two workers on one node.
        together: all workers on one node.
    """

    places: int
    amounts: tuple[int, ...]
    gpus: int = 0
    share: int = 0
    step: int = 1
    at_most_one: bool = False
    together: bool = False

    @property
    def units(self) -> int:
        """Ten-thousandths of cards."""
        return self.gpus * UNITS + self.share

    @property
    def is_strict(self) -> bool:
        """Whether it matters which workers are whose."""
        return self.at_most_one or self.together


@dataclass(frozen=True, slots=True)
class Room:
    """Nodes that are alike in everything that the needs at hand ask for.

    Args:
        members: the numbers of their node types.
        takes: for each need, whether a worker of it may be here.
        amounts: what each node has of each measure.
        cards: GPUs of each node.
        idle: accelerators of each node, which workers that use CPUs alone leave idle.
        price: of each node, infinite where it is not declared.
        up: nodes that are always up.
        extra: nodes that can be added.
    """

    members: tuple[int, ...]
    takes: tuple[bool, ...]
    amounts: tuple[int, ...]
    cards: int
    idle: int
    price: float
    up: int
    extra: int

    def holds(self, needs: Sequence[Need], mix: Mix, index: int, limit: int) -> int:
        """Return how many more workers of one need fit on a node beside a mix, at most `limit`.

        `limit` is all of them for a need whose workers stay together: it is that or none.
        """
        if not self.takes[index]:
            return 0
        need, count = needs[index], limit
        for measure, amount in enumerate(need.amounts):
            if amount:
                used = sum(
                    other.amounts[measure] * number
                    for other, number in zip(needs, mix, strict=True)
                    if number
                )
                count = min(count, (self.amounts[measure] - used) // amount)
        if need.at_most_one:
            count = min(count, 1 - mix[index])
        if need.gpus or need.share:
            count = min(count, self._beside_gpus(needs, mix, index, count))
        count -= count % need.step
        return 0 if need.together and count < limit else count

    def _beside_gpus(self, needs: Sequence[Need], mix: Mix, index: int, limit: int) -> int:
        need = needs[index]
        whole = self.cards - sum(
            other.gpus * number for other, number in zip(needs, mix, strict=True)
        )
        shares: dict[int, int] = {need.share: 0} if need.share else {}
        for other, number in zip(needs, mix, strict=True):
            if other.share and number:
                shares[other.share] = shares.get(other.share, 0) + number
        if need.gpus:
            return (whole - num_cards(tuple(sorted(shares.items())))) // need.gpus

        def fit(count: int) -> bool:
            more = shares | {need.share: shares[need.share] + count}
            return num_cards(tuple(sorted(more.items()))) <= whole

        return largest(limit, fit)


class Inventory:
    """The node types of a cluster, as far as some requests ask.

    Args:
        cluster: the cluster.
        requests: all requests that needs will be made of.
        budget: the work that packing onto these nodes may take.
    """

    def __init__(
        self, cluster: Cluster, requests: Iterable[Request], budget: Budget | None = None
    ) -> None:
        self.budget = budget or Budget()
        self.kinds = cluster.node_types
        self.up = [kind.min_count for kind in self.kinds]
        self.extra = [kind.max_count - kind.min_count for kind in self.kinds]
        self.most_added = sum(self.extra)
        if cluster.max_workers is not None:
            workers = sum(kind.min_count - kind.is_head for kind in self.kinds)
            self.most_added = max(0, cluster.max_workers - workers)
        # Mixes of workers that plans of the same needs on the same node types have tried.
        self.mixes: dict[tuple[tuple[Need, ...], tuple[int, ...]], dict[Mix, None]] = {}
        # No sum of what workers take lies between two multiples of what divides all they take.
        grains: dict[str, int] = {}
        label_keys: dict[str, None] = {}
        for request in requests:
            label_keys |= dict.fromkeys(request.labels)
            for measure, amount in _amounts(request).items():
                grains[measure] = math.gcd(grains.get(measure, 0), amount)
        self.measures = tuple(grains)
        self._alike = _alike(self.kinds, grains, tuple(label_keys))

    def need(self, request: Request, placement: PlacementStrategy = "pack") -> Need:
        """Return what each worker of a concrete request takes."""
        asked = _amounts(request)
        amounts = tuple(asked.get(measure, 0) for measure in self.measures)
        gpus = _units(request.count) if isinstance(request, GpuRequest) else 0
        places = 0
        for place, (members, there) in enumerate(self._alike):
            kind = self.kinds[members[0]]
            if (
                suits(kind, request)
                and gpus <= kind.num_gpus * UNITS
                and all(amount <= most for amount, most in zip(amounts, there, strict=True))
            ):
                places |= 1 << place
        step = step_of(request)
        return Need(
            # Hosts of a slice are nodes of their own to Ray, so no two workers share one anyway.
            places=0 if placement == "strict_pack" and step > 1 else places,
            amounts=amounts,
            gpus=gpus // UNITS,
            share=gpus % UNITS,
            step=step,
            at_most_one=placement == "strict_spread" and not isinstance(request, TpuRequest),
            together=placement == "strict_pack",
        )

    def with_extra(self, extra: Mapping[int, int]) -> Inventory:
        """Return the same with other numbers of nodes that can be added, by node type."""
        other = copy(self)
        other.extra = [extra.get(number, old) for number, old in enumerate(self.extra)]
        return other

    def rooms(self, needs: Sequence[Need]) -> list[Room]:
        """Return the nodes on which workers of these needs may be."""
        rooms = []
        for place, (members, amounts) in enumerate(self._alike):
            takes = tuple(bool(need.places >> place & 1) for need in needs)
            up = sum(self.up[number] for number in members)
            extra = sum(self.extra[number] for number in members)
            if any(takes) and up + extra:
                kind = self.kinds[members[0]]
                rooms.append(
                    Room(
                        members,
                        takes,
                        tuple(amount * kind.num_hosts for amount in amounts),
                        cards=kind.num_gpus,
                        idle=kind.num_gpus + kind.num_tpu_chips,
                        price=math.inf if kind.price_per_hour is None else kind.price_per_hour,
                        up=up,
                        extra=extra,
                    )
                )
        return rooms


def _alike(
    kinds: Sequence[NodeType], grains: Mapping[str, int], label_keys: Sequence[str]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Group the node types that differ in nothing that is asked for.

    Returns:
        For each group the numbers of its node types, and what a host has of each measure.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, kind in enumerate(kinds):
        key = (
            # What a host has, down to the last amount that workers can take together.
            tuple(_capacity(kind, name) // grain * grain for name, grain in grains.items()),
            kind.gpu_types,
            kind.num_gpus,
            kind.tpu_topology,
            kind.tpu_type,
            kind.num_tpu_chips,
            kind.spot,
            kind.price_per_hour,
            tuple(kind.labels.get(key) for key in label_keys) if label_keys else (),
        )
        groups.setdefault(key, []).append(number)
    return [(tuple(members), key[0]) for key, members in groups.items()]  # type: ignore[misc]


def suits(kind: NodeType, request: Request) -> bool:
    """Whether a node type is of the right kind for a concrete request, whatever its size."""
    return (
        has_accelerator(kind, request)
        and (request.spot or not kind.spot)
        and (not request.labels or selected(request.labels, kind.labels))
    )


def has_accelerator(kind: NodeType, request: Request) -> bool:
    """Whether a node type has the accelerator of a concrete request, in any number."""
    match request:
        case GpuRequest():
            # Without a type it stands for cards whose type nobody declared.
            return kind.num_gpus > 0 and (
                request.type[0] in kind.gpu_types if request.type else not kind.gpu_types
            )
        case TpuRequest():
            return kind.tpu_type == request.type[0] and kind.tpu_topology == request.topology
        case CpuRequest():
            # Hosts of a large slice are reserved together; no stranger may hold one of them.
            return kind.num_hosts == 1


def step_of(request: Request) -> int:
    """Return how many workers come at once: the hosts of a TPU slice, otherwise one."""
    return request.num_hosts if isinstance(request, TpuRequest) else 1


_SLICE = "hosts of a slice"


def _amounts(request: Request) -> dict[str, int]:
    """Return what a worker takes of everything that is simply added up."""
    amounts = {"cpus": _units(request.cpus)}
    if request.memory is not None:
        amounts["memory"] = request.memory
    if request.disk is not None:
        amounts["disk"] = request.disk
    for name, amount in request.custom_resources.items():
        amounts[f"custom_resources.{name}"] = _units(amount)
    if isinstance(request, TpuRequest):
        amounts[_SLICE] = 1
    return amounts


def _capacity(kind: NodeType, measure: str) -> int:
    """Return what a host has of a measure; what is not declared cannot be reserved."""
    match measure:
        case "cpus":
            return _units(kind.cpus)
        case "memory":
            return kind.memory_bytes or 0
        case "disk":
            return kind.disk_bytes or 0
        case "hosts of a slice":
            return 1 if kind.tpu_type else 0
        case _:
            return _units(kind.custom_resources.get(measure.removeprefix("custom_resources."), 0))


def _units(amount: float) -> int:
    return round(amount * UNITS)


def largest(limit: int, holds: Callable[[int], bool]) -> int:
    """Return the largest number up to `limit` that holds, when 0 does and so on up to it."""
    return bisect_left(range(1, limit + 1), True, key=lambda number: not holds(number))


def smallest(limit: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest number from 0 that holds, as all above it do; `limit` if none below."""
    return bisect_left(range(limit), True, key=holds)


def most_of(each: Sequence[int], rooms: Sequence[Room], limit: int) -> int:
    """Add up what all nodes hold, if one of each room holds so much and `limit` may be added."""
    total = sum(value * room.up for value, room in zip(each, rooms, strict=True))
    for value, extra in sorted(
        ((value, room.extra) for value, room in zip(each, rooms, strict=True)), reverse=True
    ):
        total += value * min(extra, limit)
        limit -= min(extra, limit)
    return total
