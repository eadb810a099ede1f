"""What one node of a type lacks to hold one worker, and the request that would do without it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kovar.config import format_size
from kovar.resources.alternatives import card_memory
from kovar.resources.declaration import DISK_LABEL, GPU_MEMORY_LABEL
from kovar.resources.label import selected
from kovar.resources.node_type import NodeType
from kovar.resources.request import CpuRequest, GpuRequest, Request, TpuRequest

LEFT_OUT: Final = None
"""The value of a field that the nearest request leaves out."""

_SIZES: Final = ("memory", "disk", "gpu_memory")


@dataclass(frozen=True)
class Lack:
    """One thing in which a node type falls short of a worker.

    Args:
        measure: the field of the request, for example "cpus" or "labels.zone".
        needs: what the request says, as text.
        has: what the node type has, as text.
        most: the value of the field with which this node type would do.
        remedy: what to change about the node types.
    """

    measure: str
    needs: str
    has: str
    most: Any
    remedy: str

    @property
    def can_be_asked_for(self) -> bool:
        """Whether a request with `most` is a request at all."""
        return self.most is LEFT_OUT or self.most != 0

    @property
    def change(self) -> str:
        """The nearest change of the request, as text."""
        if self.most is LEFT_OUT:
            return f"leave out {self.measure}"
        return f"use {self.measure}: {self.written}"

    @property
    def written(self) -> str:
        """`most` as a spec would have it."""
        if self.measure in _SIZES:
            return f"{int(self.most) >> 20}MiB"
        return (
            f"{self.most:g}"
            if isinstance(self.most, float)
            else (self.most if isinstance(self.most, str) else json.dumps(self.most))
        )


def is_right_kind(kind: NodeType, request: Request) -> bool:
    """Whether a node type has an accelerator that a request as written names, in any number."""
    match request:
        case GpuRequest():
            return kind.num_gpus > 0 and (
                not request.type or not {*request.type}.isdisjoint(kind.gpu_types)
            )
        case TpuRequest():
            return kind.tpu_type in request.type and kind.tpu_topology == request.topology
        case CpuRequest():
            return kind.num_hosts == 1


def lacks(request: Request, kind: NodeType) -> list[Lack]:
    """List what a node type of the right kind lacks for one worker; nothing when it holds one."""
    return [*_of_labels(request, kind), *_of_gpus(request, kind), *_of_amounts(request, kind)]


def gpus_asked(request: GpuRequest) -> str:
    """Write the GPUs of a worker as a person does: "A100:4 or H100:4"."""
    return " or ".join(f"{name}:{request.count:g}" for name in request.type or ("GPU",))


def without(request: Request, found: Sequence[Lack]) -> Request:
    """Return the request with the nearest change for each of these lacks."""
    update: dict[str, Any] = {}
    for lack in found:
        field, _, name = lack.measure.partition(".")
        if not name:
            update[field] = lack.most
            continue
        mapping = dict(update.get(field, getattr(request, field)))
        if lack.most is LEFT_OUT:
            del mapping[name]
        else:
            mapping[name] = lack.most
        update[field] = mapping
    return request.model_copy(update=update)


def declaring(request: Request, kind: NodeType) -> NodeType:
    """Return the node type as if it declared as much disk and GPU memory as a worker wants."""
    gpu_memory = request.gpu_memory if isinstance(request, GpuRequest) else None
    return replace(
        kind,
        disk_bytes=kind.disk_bytes or request.disk,
        accelerator_memory_bytes=card_memory(kind) or gpu_memory,
    )


def _of_labels(request: Request, kind: NodeType) -> Iterator[Lack]:
    for key, selector in request.labels.items():
        if not selected({key: selector}, kind.labels):
            value = kind.labels.get(key)
            yield Lack(
                f"labels.{key}",
                needs=f"the label {key}: {selector}",
                has=f"{key}: {value}" if value is not None else f"no label {key}",
                # A selector that excludes values is not turned into one that demands them.
                most=LEFT_OUT if value is None or selector.startswith("!") else value,
                remedy=f"declare a node type with a label {key} that meets {selector}",
            )
    if kind.spot and not request.spot:
        yield Lack(
            "spot",
            needs="a node that cannot be taken away (spot: false)",
            has="Spot nodes",
            most=True,
            remedy="declare a node type that is not Spot",
        )


def _of_gpus(request: Request, kind: NodeType) -> Iterator[Lack]:
    if not isinstance(request, GpuRequest):
        return
    if request.gpu_memory is not None:
        size = card_memory(kind)
        if size is None or request.gpu_memory > size:
            needs = f"{format_size(request.gpu_memory)} of GPU memory on one card"
            label = f"the label {GPU_MEMORY_LABEL} on {kind.name}"
            yield Lack(
                "gpu_memory",
                needs=needs,
                has=format_size(size) if size else "no known GPU memory",
                most=size >> 20 << 20 if size else 0,
                remedy=f"declare {label}" if size is None else f"declare a node type with {needs}",
            )
    elif request.count > kind.num_gpus:
        needs = gpus_asked(request)
        yield Lack(
            "count",
            needs=needs,
            has=f"{kind.num_gpus}",
            most=float(kind.num_gpus),
            remedy=f"declare a node type with {needs}",
        )


def _of_amounts(request: Request, kind: NodeType) -> Iterator[Lack]:
    if request.cpus > kind.cpus:
        needs = f"{request.cpus:g} CPUs"
        yield Lack(
            "cpus", needs, f"{kind.cpus:g}", kind.cpus, remedy=f"declare a node type with {needs}"
        )
    yield from _of_size(
        "memory",
        request.memory,
        kind.memory_bytes,
        "memory",
        (f"declare memory, in bytes, under resources of {kind.name}"),
    )
    yield from _of_size(
        "disk",
        request.disk,
        kind.disk_bytes,
        "local disk",
        (f"declare the label {DISK_LABEL} on {kind.name}"),
    )
    for name, amount in request.custom_resources.items():
        there = kind.custom_resources.get(name, 0)
        if amount > there:
            yield Lack(
                f"custom_resources.{name}",
                needs=f"{name}: {amount:g}",
                has=", ".join(f"{key}: {most:g}" for key, most in kind.custom_resources.items())
                or f"no {name}",
                most=there or LEFT_OUT,
                remedy=f"declare {name} under resources of a node type",
            )


def _of_size(
    measure: str, wanted: int | None, there: int | None, what: str, remedy: str
) -> Iterator[Lack]:
    if wanted is not None and wanted > (there or 0):
        needs = f"{format_size(wanted)} of {what}"
        yield Lack(
            measure,
            needs=needs,
            has=format_size(there) if there else f"no declared {what}",
            # Less than a mebibyte cannot be written, so it is left out as well.
            most=(there or 0) >> 20 << 20 or LEFT_OUT,
            remedy=f"declare a node type with {needs}" if there else remedy,
        )
