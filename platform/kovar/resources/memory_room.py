"""How much memory one worker can use where a plan puts it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kovar.config import format_size
from kovar.resources.alternatives import card_memory
from kovar.resources.cluster import Cluster
from kovar.resources.node_type import NodeType
from kovar.resources.plan import Placement
from kovar.resources.request import CpuRequest, GpuRequest, Request


@dataclass(frozen=True)
class MemoryRoom:
    """Memory for one worker, and whose it is.

    Args:
        size_bytes: how much.
        of: what a person calls it, for example "one L4".
        field: the field of the request that reserves it; None where nothing does.
    """

    size_bytes: int
    of: str
    field: str | None = None

    def __str__(self) -> str:
        return f"{format_size(self.size_bytes)} ({self.of})"


@dataclass(frozen=True)
class Place:
    """One node type that holds workers of a demand, at the node where they have the least.

    Args:
        kind: the node type.
        num_workers: workers of the demand on that node.
        reserved_bytes: memory that workers of others reserve there. What they use without
            reserving it is their own plan's matter.
    """

    kind: NodeType
    num_workers: int
    reserved_bytes: int

    @property
    def memory_bytes(self) -> int | None:
        """Memory of the host for each worker; None when it is not declared."""
        if self.kind.memory_bytes is None:
            return None
        return (self.kind.memory_bytes - self.reserved_bytes) // self.num_workers


def places_of(placement: Placement, demand: str, cluster: Cluster) -> list[Place]:
    """List the node types that hold a demand."""
    kinds = {kind.name: kind for kind in cluster.node_types}
    tightest: dict[str, Place] = {}
    for group in placement.nodes:
        if not group.workers.get(demand):
            continue
        reserved = sum(
            (placement.requests[name].memory or 0) * number
            for name, number in group.workers.items()
            if name != demand
        )
        place = Place(kinds[group.node_type], group.workers[demand], reserved)
        known = tightest.get(group.node_type)
        if known is None or (place.memory_bytes or 0) < (known.memory_bytes or 0):
            tightest[group.node_type] = place
    return [tightest[name] for name in kinds if name in tightest]


def memory_room(request: Request, places: Iterable[Place]) -> MemoryRoom | None:
    """Find the memory that every worker of a group can count on: the least of its places.

    Args:
        request: what each worker gets, with the type that was chosen.
        places: where they are.

    Returns:
        None when the memory of a card or a machine is not known.
    """
    if isinstance(request, CpuRequest):
        return _host_room(request, places)
    rooms = [_card_room(request, place.kind) for place in places]
    known = [room for room in rooms if room is not None]
    # A worker computes on one card, whatever their number.
    return min(known, key=_size, default=None) if len(known) == len(rooms) else None


def _card_room(request: Request, kind: NodeType) -> MemoryRoom | None:
    size = card_memory(kind)
    if size is None:
        return None
    name = kind.tpu_type or ("GPU", *kind.gpu_types)[-1]
    if isinstance(request, GpuRequest) and request.count < 1:
        return MemoryRoom(int(size * request.count), f"{request.count:.3g} of one {name}", "count")
    return MemoryRoom(size, f"one {name}")


def _host_room(request: CpuRequest, places: Iterable[Place]) -> MemoryRoom | None:
    if request.memory is not None:
        return MemoryRoom(request.memory, "reserved by memory", "memory")
    rooms = [
        MemoryRoom(place.memory_bytes, _shared(place))
        for place in places
        if place.memory_bytes is not None
    ]
    return min(rooms, key=_size, default=None)


def _shared(place: Place) -> str:
    """Name a host, with the workers that share it."""
    number = place.num_workers
    return f"{place.kind.name}, shared by {number} workers" if number > 1 else place.kind.name


def _size(room: MemoryRoom) -> int:
    return room.size_bytes
