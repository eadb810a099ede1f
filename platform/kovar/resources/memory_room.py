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


def places_of(placement: Placement, demand: str, cluster: Cluster) -> list[tuple[NodeType, int]]:
    """List the node types that hold a demand, with the most workers of anyone on one such node."""
    most: dict[str, int] = {}
    for group in placement.nodes:
        if group.workers.get(demand):
            most[group.node_type] = max(most.get(group.node_type, 0), sum(group.workers.values()))
    return [(kind, most[kind.name]) for kind in cluster.node_types if kind.name in most]


def memory_room(request: Request, places: Iterable[tuple[NodeType, int]]) -> MemoryRoom | None:
    """Find the memory that every worker of a group can count on: the least of its places.

    Args:
        request: what each worker gets, with the type that was chosen.
        places: node types in use, each with the most workers (of anyone) on one such node.

    Returns:
        None when the memory of a card or a machine is not known.
    """
    if isinstance(request, CpuRequest):
        return _host_room(request, places)
    rooms = [_card_room(request, kind) for kind, _ in places]
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


def _host_room(request: CpuRequest, places: Iterable[tuple[NodeType, int]]) -> MemoryRoom | None:
    if request.memory is not None:
        return MemoryRoom(request.memory, "reserved by memory", "memory")
    rooms = [
        MemoryRoom(
            kind.memory_bytes // number,
            f"{kind.name}, shared by {number} workers" if number > 1 else kind.name,
        )
        for kind, number in places
        if kind.memory_bytes is not None
    ]
    return min(rooms, key=_size, default=None)


def _size(room: MemoryRoom) -> int:
    return room.size_bytes
