"""Why a demand cannot be placed, and the nearest changes with which it can."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kovar.config import format_size
from kovar.errors import PlacementError, UndecidedError
from kovar.resources.alternatives import gpu_names
from kovar.resources.arrangement import arrange
from kovar.resources.budget import Budget
from kovar.resources.cluster import Cluster
from kovar.resources.demand import Demand
from kovar.resources.lack import (
    LEFT_OUT,
    Lack,
    declaring,
    gpus_asked,
    is_right_kind,
    lacks,
    without,
)
from kovar.resources.need import largest, smallest, step_of
from kovar.resources.node_type import NodeType
from kovar.resources.request import CpuRequest, GpuRequest, Request, TpuRequest

_MOST_KINDS = 8
"""Node types that are tried for each way to mend a demand, the nearest first."""

_MOST_HINTS = 3
_AND = " and "


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


class _Others:
    """The demands that have their place already, and what was found out about room beside them."""

    def __init__(self, demands: Sequence[Demand], budget: Budget) -> None:
        self.demands, self._budget = demands, budget
        self._tried: list[tuple[Demand, Cluster, bool | None]] = []

    def leave_room_for(self, demand: Demand, cluster: Cluster) -> bool:
        """Whether there is known to be room for one more demand."""
        return self._decision(demand, cluster) is True

    def leave_no_room_for(self, demand: Demand, cluster: Cluster) -> bool:
        """Whether there is proven to be none."""
        return self._decision(demand, cluster) is False

    def _decision(self, demand: Demand, cluster: Cluster) -> bool | None:
        for other, where, decision in self._tried:
            if other == demand and where == cluster:
                return decision
        decision = self._decide(demand, cluster)
        self._tried.append((demand, cluster, decision))
        return decision

    def _decide(self, demand: Demand, cluster: Cluster) -> bool | None:
        try:
            self._budget.check()
            return arrange([*self.demands, demand], cluster, self._budget) is not None
        except UndecidedError:
            return None


def refusal(
    demand: Demand, before: Sequence[Demand], cluster: Cluster, budget: Budget
) -> PlacementError:
    """Explain why `demand` fits nowhere beside those `before` it.

    Every change that the hint offers was tried, and makes the demand placeable. When the budget is
    spent, no more are tried.
    """
    others = _Others(before, budget)
    right_kind = [kind for kind in cluster.node_types if is_right_kind(kind, demand.request)]
    nearest = sorted(right_kind, key=lambda kind: _distance(demand.request, kind))
    reason = _reason(demand, others, cluster, nearest)
    return PlacementError(
        reason.message,
        field=reason.field,
        got=reason.got,
        allowed=reason.allowed,
        hint=", or ".join(_hints(demand, others, cluster, nearest)) or reason.remedy,
    )


def _reason(
    demand: Demand, others: _Others, cluster: Cluster, nearest: Sequence[NodeType]
) -> _Reason:
    if not nearest:
        return _wrong_accelerator(demand, cluster)
    missing = lacks(demand.request, nearest[0])
    if missing:
        return _too_large(demand, nearest, missing[0])
    lax = replace(demand, placement="pack")
    if demand.placement.startswith("strict") and others.leave_room_for(lax, cluster):
        return _too_strict(demand, others)
    return _too_many(demand, others, cluster)


def _hints(
    demand: Demand, others: _Others, cluster: Cluster, nearest: Sequence[NodeType]
) -> list[str]:
    """Try the changes in turn, those of the numbers first, until there are enough that work."""
    near = nearest[:_MOST_KINDS]
    works: list[str] = []
    for changes in (
        _laxer(demand, cluster),
        _fewer_workers(demand, others, cluster),
        _more_nodes(demand, others, near, cluster),
        _declared(demand, near, cluster),
        _smaller_workers(demand, others, near, cluster),
        _other_accelerators(demand, others, cluster),
    ):
        for change in changes:
            parts = set(change.text.split(_AND))
            if any(parts.issuperset(other.split(_AND)) for other in works):
                continue  # A part of it is enough.
            if others.leave_room_for(change.demand, change.cluster):
                works.append(change.text)
            if len(works) == _MOST_HINTS:
                return works
    return works


def _distance(request: Request, kind: NodeType) -> tuple[int, bool, float]:
    """Order node types: fewest lacks, then some of what is lacking, then the largest."""
    missing = lacks(request, kind)
    size = kind.num_gpus if isinstance(request, GpuRequest) else kind.cpus
    return len(missing), any(lack.most is LEFT_OUT for lack in missing), -size


def _asked(request: Request) -> str:
    match request:
        case GpuRequest(gpu_memory=int(size)):
            return f"{format_size(size)} of {' or '.join(request.type) or 'a GPU'}"
        case GpuRequest():
            return gpus_asked(request)
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
        case GpuRequest():
            part, what = "kind", "a GPU"
        case CpuRequest():
            part, what = "kind", "hosts for work that uses CPUs alone"
    return _Reason(
        f"no node type has {what}",
        field=f"{demand.field}.{part}",
        got=asked,
        allowed=", ".join(there) or "kind: cpu; there are no accelerators",
        remedy=f"declare a node type with {what}",
    )


def _too_large(demand: Demand, nearest: Sequence[NodeType], lack: Lack) -> _Reason:
    """One worker is more than any node holds; say in what, on the node type that comes nearest."""
    others = [
        other.has
        for kind in nearest
        for other in lacks(demand.request, kind)
        if other.measure == lack.measure and other.most is not None
    ]
    if "." in lack.measure or lack.measure == "spot":
        # Not a matter of size: what the other node types have is as near.
        message = f"no node type that could hold a worker has {lack.needs}"
        allowed = ", ".join(dict.fromkeys(others)) or lack.has
    else:
        message = (
            f"{lack.needs} per worker; the node type that comes nearest, {nearest[0].name}, "
            f"has {lack.has}"
        )
        allowed = f"at most {lack.has}" if lack.has[0].isdigit() else lack.has
    return _Reason(
        message,
        field=f"{demand.field}.{lack.measure}",
        got=lack.needs,
        allowed=allowed,
        remedy=lack.remedy,
    )


def _beside(others: _Others) -> str:
    return f" beside {' and '.join(one.name for one in others.demands)}" if others.demands else ""


def _too_strict(demand: Demand, others: _Others) -> _Reason:
    how = "on one node" if demand.placement == "strict_pack" else "on a node of its own each"
    return _Reason(
        f"{demand.num_min} × {_asked(demand.request)} does not fit {how}{_beside(others)}",
        field=f"{_parent(demand)}placement",
        got=demand.placement,
        allowed="pack, spread",
        remedy="declare larger nodes"
        if demand.placement == "strict_pack"
        else "declare more nodes",
    )


def _parent(demand: Demand) -> str:
    """Return the path of the block that holds the request and its placement."""
    block, dot, _ = demand.field.rpartition(".")
    return block + dot


def _too_many(demand: Demand, others: _Others, cluster: Cluster) -> _Reason:
    most = _most_workers(demand, others, cluster)
    each = _asked(demand.request)
    step = step_of(demand.request)
    one_more = replace(demand, num_min=most + step)
    # Undecided numbers are not told as too large.
    is_most = most + step == demand.num_min or others.leave_no_room_for(one_more, cluster)
    return _Reason(
        f"{demand.num_min} × {each} does not fit{_beside(others)}",
        field=demand.num_field or demand.field,
        got=str(demand.num_min),
        allowed=f"at most {most}" if is_most else f"fewer than {demand.num_min}",
        remedy=f"declare more nodes for {each}",
    )


def _most_workers(demand: Demand, others: _Others, cluster: Cluster) -> int:
    step = step_of(demand.request)

    def holds(groups: int) -> bool:
        return others.leave_room_for(replace(demand, num_min=groups * step), cluster)

    return step * largest(demand.num_min // step, holds)


def _number_name(demand: Demand) -> str:
    return (demand.num_field or "num_workers").rpartition(".")[2]


def _laxer(demand: Demand, cluster: Cluster) -> Iterator[_Change]:
    match demand.placement:
        case "strict_pack":
            yield _Change("use placement: pack", replace(demand, placement="pack"), cluster)
        case "strict_spread":
            yield _Change("use placement: spread", replace(demand, placement="spread"), cluster)


def _fewer_workers(demand: Demand, others: _Others, cluster: Cluster) -> Iterator[_Change]:
    most = _most_workers(demand, others, cluster)
    if most:
        yield _Change(f"use {_number_name(demand)}: {most}", replace(demand, num_min=most), cluster)


def _more_nodes(
    demand: Demand, others: _Others, near: Sequence[NodeType], cluster: Cluster
) -> Iterator[_Change]:
    for kind in near:
        if not kind.is_head and not lacks(demand.request, kind):
            yield _more_of(kind, demand, others, cluster)


def _more_of(kind: NodeType, demand: Demand, others: _Others, cluster: Cluster) -> _Change:
    """Raise the limit of one node type, and the cluster's own where that is in the way."""

    def more(count: int, limit: int | None) -> Cluster:
        grown = tuple(
            replace(one, max_count=one.max_count + count) if one is kind else one
            for one in cluster.node_types
        )
        return replace(cluster, node_types=grown, max_workers=limit)

    def holds(count: int, limit: int | None) -> bool:
        return others.leave_room_for(demand, more(count, limit))

    added = smallest(demand.num_min, lambda count: holds(count, None))
    texts = []
    if added:
        most = kind.max_count
        texts.append(f"raise {kind.name}.{cluster.limit_name} from {most} to {most + added}")
    limit = old = cluster.max_workers
    if old is not None and not holds(added, old):
        limit = old + smallest(
            sum(one.max_count for one in more(added, None).node_types),
            lambda extra: holds(added, old + extra),
        )
        texts.append(f"raise the cluster's max_workers from {old} to {limit}")
    return _Change(_AND.join(texts), demand, more(added, limit))


def _declared(demand: Demand, near: Sequence[NodeType], cluster: Cluster) -> Iterator[_Change]:
    """Declare what the nearest node type may well have, but does not say."""
    for kind in near:
        missing = lacks(demand.request, kind)
        declared = declaring(demand.request, kind)
        if missing and declared != kind and not lacks(demand.request, declared):
            types = tuple(declared if one is kind else one for one in cluster.node_types)
            text = f"{_AND.join(lack.remedy for lack in missing)}, if it has so much"
            yield _Change(text, demand, replace(cluster, node_types=types))
            return


def _smaller_workers(
    demand: Demand, others: _Others, near: Sequence[NodeType], cluster: Cluster
) -> Iterator[_Change]:
    """Cut a worker down to a node; when GPUs are cut, more workers keep their total."""
    for kind in near:
        missing = lacks(demand.request, kind)
        if not missing or not all(lack.can_be_asked_for for lack in missing):
            continue
        cut, text = _cut_down(demand, missing)
        yield _Change(text, cut, cluster)
        if not kind.is_head and not lacks(cut.request, kind):
            more = _more_of(kind, cut, others, cluster)
            if more.text:
                yield replace(more, text=f"{text}{_AND}{more.text}")


def _cut_down(demand: Demand, missing: Sequence[Lack]) -> tuple[Demand, str]:
    smaller = without(demand.request, missing)
    number, texts = demand.num_min, [lack.change for lack in missing]
    if demand.num_field and isinstance(demand.request, GpuRequest):
        assert isinstance(smaller, GpuRequest)  # noqa: S101 - a copy of the same kind
        number = math.ceil(demand.request.count * number / smaller.count)
    if number != demand.num_min:
        name = _number_name(demand)
        each = f"{smaller.count:g}"  # type: ignore[union-attr]
        texts = [text for text in texts if not text.startswith("use count:")]
        workers = f"use {number} {name.removeprefix('num_')} × {each}"
        texts.insert(0, f"{workers} ({name}: {number}, count: {each})")
    return replace(demand, request=smaller, num_min=number), _AND.join(texts)


def _other_accelerators(demand: Demand, others: _Others, cluster: Cluster) -> Iterator[_Change]:
    request = demand.request
    match request:
        case GpuRequest():
            for name in gpu_names(cluster):
                if name and name not in request.type:
                    typed = request.model_copy(update={"type": (name,)})
                    yield _Change(f"use type: {name}", replace(demand, request=typed), cluster)
        case TpuRequest():
            for kind in cluster.node_types:
                if kind.tpu_type and not is_right_kind(kind, request):
                    yield _other_slice(kind, request, demand, others, cluster)
        case CpuRequest():
            return
    if not any(kind.accelerator for kind in cluster.node_types):
        shared = {
            name: getattr(request, name) for name in CpuRequest.model_fields if name != "kind"
        }
        yield _Change("use kind: cpu", replace(demand, request=CpuRequest(**shared)), cluster)


def _other_slice(
    kind: NodeType,
    request: TpuRequest,
    demand: Demand,
    others: _Others,
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
