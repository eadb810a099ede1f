"""What a request as written can mean on a cluster: concrete requests, in order of preference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kovar.resources.accelerators import accelerator_memory
from kovar.resources.cards import UNITS
from kovar.resources.cluster import Cluster
from kovar.resources.declaration import GPU_MEMORY_LABEL
from kovar.resources.need import suits
from kovar.resources.node_type import NodeType
from kovar.resources.request import CpuRequest, GpuRequest, Request, TpuRequest


def concrete_requests(request: Request, cluster: Cluster) -> list[Request]:
    """List what Ray can be asked for: one accelerator type, and a number of GPUs.

    Types that are listed keep their order; without a type each GPU type of the cluster will do.
    GPU memory becomes the share of one card that holds as much.
    """
    match request:
        case CpuRequest():
            return [request]
        case TpuRequest():
            return [request.model_copy(update={"type": (name,)}) for name in request.type]
        case GpuRequest():
            names = request.type or gpu_names(cluster)
            typed = [request.model_copy(update={"type": (name,) if name else ()}) for name in names]
            return [concrete for one in typed for concrete in _in_cards(one, cluster)]


def unseen_request(request: Request, cluster: Cluster) -> Request | None:
    """Return what Ray can be asked for on nodes that are yet to come.

    Of listed types it is the first that the cluster shows, else the first.

    Returns:
        None when GPU memory cannot be turned into a share, because no listed type is known.
    """
    if isinstance(request, CpuRequest) or not request.type:
        return None if isinstance(request, GpuRequest) and request.gpu_memory else request
    shown = {name for kind in cluster.node_types for name in (*kind.gpu_types, kind.tpu_type)}
    for name in sorted(request.type, key=lambda name: name not in shown):
        typed = request.model_copy(update={"type": (name,)})
        if isinstance(typed, TpuRequest) or typed.gpu_memory is None:
            return typed
        size = accelerator_memory((name,))
        found = concrete_requests(typed, cluster)
        if found:
            return found[0]
        if size and typed.gpu_memory <= size:
            return _as_share(typed, typed.gpu_memory, size)
    return None


def gpu_names(cluster: Cluster) -> tuple[str, ...]:
    """List the GPU types of a cluster; "" stands for cards whose type nobody declared."""
    return tuple(
        dict.fromkeys(
            name for kind in cluster.node_types if kind.num_gpus for name in kind.gpu_types or ("",)
        )
    )


def _in_cards(request: GpuRequest, cluster: Cluster) -> Iterator[GpuRequest]:
    """Turn GPU memory into a share of a card of the one type that is asked for."""
    if request.gpu_memory is None:
        yield request
        return
    cards = [
        (memory, kind)
        for kind in cluster.node_types
        if suits(kind, request) and (memory := card_memory(kind))
    ]
    for size in sorted({memory for memory, _ in cards}):
        if request.gpu_memory > size:
            continue
        labels = _labels_of([kind for memory, kind in cards if memory >= size], cards)
        if labels is not None:
            share = _as_share(request, request.gpu_memory, size)
            yield share.model_copy(update={"labels": {**request.labels, **labels}})


def _as_share(request: GpuRequest, wanted: int, size: int) -> GpuRequest:
    """Ask for the share of a card that holds so many bytes.

    Rounded up to what Ray can count, so that the shares on a card never exceed its memory.
    """
    share = -(-wanted * UNITS // size) / UNITS
    return request.model_copy(update={"count": share, "gpu_memory": None})


def _labels_of(
    chosen: Sequence[NodeType], cards: Sequence[tuple[int, NodeType]]
) -> dict[str, str] | None:
    """Return labels that keep workers on the larger of several cards of one name.

    None when their node types lack the label that tells them apart.
    """
    if len(chosen) == len(cards):
        return {}
    sizes = dict.fromkeys(kind.labels.get(GPU_MEMORY_LABEL) for kind in chosen)
    return None if None in sizes else {GPU_MEMORY_LABEL: f"in({', '.join(map(str, sizes))})"}


def card_memory(kind: NodeType) -> int | None:
    """Return the memory of each card in bytes: as declared, else as its type is known to have."""
    return kind.accelerator_memory_bytes or accelerator_memory(kind.gpu_types)
