"""Why a demand cannot be placed, and the nearest changes with which it can."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kovar.config import format_size
from kovar.errors import PlacementError
from kovar.resources.cluster import Cluster
from kovar.resources.demand import Demand
from kovar.resources.node_type import NodeType
from kovar.resources.packing import fits, largest, matches, pack, smallest, step_of
from kovar.resources.request import CpuRequest, GpuRequest, Request, TpuRequest


@dataclass(frozen=True)
class _Change:
    text: str
    demand: Demand
    cluster: Cluster


@dataclass(frozen=True)
class _Reason:
    message: str
    field: str
    got: str
    allowed: str
    remedy: str


def refusal(demand: Demand, others: Sequence[Demand], cluster: Cluster) -> PlacementError:
    """Explain why `demand` fits nowhere beside `others`, which do fit by themselves.

    Every change that the hint offers was tried, and makes the demand placeable.
    """
    right_kind = [kind for kind in cluster.node_types if matches(kind, demand.request)]
    if not right_kind:
        reason = _wrong_accelerator(demand, cluster)
    elif not any(_holds_one(kind, demand.request) for kind in right_kind):
        reason = _too_large(demand, right_kind)
    else:
        reason = _too_many(demand, others, cluster)
    changes = (
        *_fewer_workers(demand, others, cluster),
        *_more_nodes(demand, others, cluster),
        *_smaller_workers(demand, others, right_kind, cluster),
        *_other_accelerators(demand, others, cluster),
    )
    works = dict.fromkeys(
        change.text for change in changes if _placeable(change.demand, others, change.cluster)
    )
    return PlacementError(
        reason.message,
        field=reason.field,
        got=reason.got,
        allowed=reason.allowed,
        hint=", or ".join(list(works)[:3]) or reason.remedy,
    )


def _holds_one(kind: NodeType, request: Request) -> bool:
    return fits(kind, [request], (step_of(request),))


def _placeable(demand: Demand, others: Sequence[Demand], cluster: Cluster) -> bool:
    together = [*others, demand]
    requests = [one.request for one in together]
    return pack(requests, tuple(one.num_min for one in together), cluster) is not None


def _asked(request: Request) -> str:
    match request:
        case GpuRequest():
            return f"{' or '.join(request.type) or 'GPU'}:{request.count:g}"
        case TpuRequest():
            return f"{' or '.join(request.type)} {request.topology}"
        case CpuRequest():
            return f"{request.cpus:g} CPU{'s' if request.cpus != 1 else ''}"


def _wrong_accelerator(demand: Demand, cluster: Cluster) -> _Reason:
    there = sorted({kind.accelerator for kind in cluster.node_types if kind.accelerator})
    asked = _asked(demand.request)
    match demand.request:
        case GpuRequest(type=names) if names:
            part, what = "type", " or ".join(names)
        case TpuRequest(type=names):
            known = any(kind.tpu_type in names for kind in cluster.node_types)
            part, what = "topology" if known else "type", asked
        case _:
            part, what = "kind", "a GPU"
    return _Reason(
        f"no node type has {what}",
        field=f"{demand.field}.{part}",
        got=asked,
        allowed=", ".join(there) or "kind: cpu; there are no accelerators",
        remedy=f"declare a node type with {what}",
    )


def _too_large(demand: Demand, right_kind: Sequence[NodeType]) -> _Reason:
    """One worker is larger than any node; name the measure on the node type that comes nearest."""
    kind = _nearest_first(demand.request, right_kind)[0]
    measure = next(iter(_excess(demand.request, kind)))
    if measure == "memory":
        needs = f"{format_size(demand.request.memory or 0)} of memory"
        declared = kind.memory_bytes is not None
        has = format_size(kind.memory_bytes or 0) if declared else "no declared memory"
        remedy = f"declare memory, in bytes, under resources of {kind.name}"
    elif measure == "count":
        needs, has = _asked(demand.request), f"{kind.num_gpus}"
        remedy = f"declare a node type with {needs}"
    else:
        needs, has = f"{demand.request.cpus:g} CPUs", f"{kind.cpus:g}"
        remedy = f"declare a node type with {needs}"
    return _Reason(
        f"one worker needs {needs}; the node type that comes nearest, {kind.name}, has {has}",
        field=f"{demand.field}.{measure}",
        got=needs,
        allowed=f"at most {has}" if has[0].isdigit() else has,
        remedy=remedy,
    )


def _nearest_first(request: Request, kinds: Sequence[NodeType]) -> list[NodeType]:
    size = "num_gpus" if isinstance(request, GpuRequest) else "cpus"
    return sorted(kinds, key=lambda kind: (len(_excess(request, kind)), -getattr(kind, size)))


def _excess(request: Request, kind: NodeType) -> dict[str, float | None]:
    """List the measures in which one worker exceeds a node, with the most that the node has.

    A node without declared memory cannot reserve any: None, which asks for none.
    """
    room: dict[str, float | None] = {}
    if isinstance(request, GpuRequest) and request.count > kind.num_gpus:
        room["count"] = float(kind.num_gpus)
    if request.cpus > kind.cpus:
        room["cpus"] = float(kind.cpus)
    if (request.memory or 0) > (kind.memory_bytes or 0):
        room["memory"] = kind.memory_bytes and kind.memory_bytes >> 20 << 20
    return room


def _too_many(demand: Demand, others: Sequence[Demand], cluster: Cluster) -> _Reason:
    most = _most_workers(demand, others, cluster)
    beside = f" beside {' and '.join(one.name for one in others)}" if others else ""
    each = _asked(demand.request)
    return _Reason(
        f"{demand.num_min} × {each} does not fit{beside}",
        field=demand.num_field or demand.field,
        got=str(demand.num_min),
        allowed=f"at most {most}",
        remedy=f"declare more nodes for {each}",
    )


def _most_workers(demand: Demand, others: Sequence[Demand], cluster: Cluster) -> int:
    step = step_of(demand.request)

    def holds(groups: int) -> bool:
        return _placeable(replace(demand, num_min=groups * step), others, cluster)

    return step * largest(demand.num_min // step, holds)


def _number_name(demand: Demand) -> str:
    return (demand.num_field or "num_workers").rpartition(".")[2]


def _fewer_workers(demand: Demand, others: Sequence[Demand], cluster: Cluster) -> Iterator[_Change]:
    most = _most_workers(demand, others, cluster)
    if most:
        yield _Change(f"use {_number_name(demand)}: {most}", replace(demand, num_min=most), cluster)


def _more_nodes(demand: Demand, others: Sequence[Demand], cluster: Cluster) -> Iterator[_Change]:
    for kind in cluster.node_types:
        if not kind.is_head and _holds_one(kind, demand.request):
            yield _more_of(kind, demand, others, cluster)


def _more_of(kind: NodeType, demand: Demand, others: Sequence[Demand], cluster: Cluster) -> _Change:
    """Raise the limit of one node type, and the cluster's own where that is in the way."""

    def more(count: int, limit: int | None) -> Cluster:
        grown = tuple(
            replace(one, max_count=one.max_count + count) if one is kind else one
            for one in cluster.node_types
        )
        return replace(cluster, node_types=grown, max_workers=limit)

    def holds(count: int, limit: int | None) -> bool:
        return _placeable(demand, others, more(count, limit))

    added = smallest(demand.num_min, lambda count: holds(count, None))
    texts = []
    if added:
        most = kind.max_count
        texts.append(f"raise {kind.name}.max_workers from {most} to {most + added}")
    limit = old = cluster.max_workers
    if old is not None and not holds(added, old):
        limit = old + smallest(
            sum(one.max_count for one in more(added, None).node_types),
            lambda extra: holds(added, old + extra),
        )
        texts.append(f"raise the cluster's max_workers from {old} to {limit}")
    return _Change(" and ".join(texts), demand, more(added, limit))


def _smaller_workers(
    demand: Demand,
    others: Sequence[Demand],
    right_kind: Sequence[NodeType],
    cluster: Cluster,
) -> Iterator[_Change]:
    """Cut a worker down to a node; when GPUs are cut, more workers keep their total."""
    for kind in _nearest_first(demand.request, right_kind):
        excess = _excess(demand.request, kind)
        if not excess or 0 in excess.values():
            continue
        smaller = demand.request.model_copy(update=excess)
        number = demand.num_min
        if isinstance(demand.request, GpuRequest) and isinstance(smaller, GpuRequest):
            number = math.ceil(demand.request.count * number / smaller.count)
        text = " and ".join(_written(name, most) for name, most in excess.items())
        if number != demand.num_min:
            text += f" with {_number_name(demand)}: {number}"
        cut = replace(demand, request=smaller, num_min=number)
        yield _Change(text, cut, cluster)
        if not kind.is_head and _holds_one(kind, smaller):
            more = _more_of(kind, cut, others, cluster)
            if more.text:
                yield replace(more, text=f"{text} and {more.text}")


def _written(measure: str, most: float | None) -> str:
    if measure != "memory":
        return f"use {measure}: {most:g}"
    return f"use memory: {int(most) >> 20}MiB" if most else "leave out memory"


def _other_accelerators(
    demand: Demand, others: Sequence[Demand], cluster: Cluster
) -> Iterator[_Change]:
    request = demand.request
    match request:
        case GpuRequest():
            for name in dict.fromkeys(
                name for kind in cluster.node_types for name in kind.gpu_types
            ):
                typed = request.model_copy(update={"type": (name,)})
                yield _Change(f"use type: {name}", replace(demand, request=typed), cluster)
        case TpuRequest():
            for kind in cluster.node_types:
                if kind.tpu_type and not matches(kind, request):
                    yield _other_slice(kind, request, demand, others, cluster)
        case CpuRequest():
            return
    if not any(kind.accelerator for kind in cluster.node_types):
        cpus = CpuRequest(cpus=request.cpus, memory=request.memory)
        yield _Change("use kind: cpu", replace(demand, request=cpus), cluster)


def _other_slice(
    kind: NodeType,
    request: TpuRequest,
    demand: Demand,
    others: Sequence[Demand],
    cluster: Cluster,
) -> _Change:
    """Use the slices that there are: as many chips as were wanted, or as many as fit."""
    shape = {"type": (kind.tpu_type,), "topology": kind.tpu_topology}
    shaped = request.model_copy(update=shape)
    chips = request.chips_per_host * demand.num_min
    slices = math.ceil(chips / (shaped.chips_per_host * kind.num_hosts))
    other = replace(demand, request=shaped, num_min=slices * kind.num_hosts)
    most = _most_workers(other, others, cluster)
    text = f"use type: {kind.tpu_type} with topology: {kind.tpu_topology}"
    return _Change(
        f"{text} and {_number_name(demand)}: {most}",
        replace(other, num_min=most or kind.num_hosts),
        cluster,
    )
