"""What the share of a node costs that a trial holds."""

from __future__ import annotations

from kovar.resources import CpuRequest, GpuRequest, NodeType, Request


def share_of(request: Request, kind: NodeType) -> float:
    """Return the share of a node, or of a TPU slice, that one worker takes from all others.

    It is the largest of its shares in CPUs, memory and accelerators: whoever holds all GPUs of a
    node keeps everyone off it who wants one.
    """
    shares = [request.cpus / kind.cpus if kind.cpus else 0.0]
    if request.memory and kind.memory_bytes:
        shares.append(request.memory / kind.memory_bytes)
    match request:
        case CpuRequest():
            pass
        case GpuRequest():
            shares.append(request.count / kind.num_gpus if kind.num_gpus else 1.0)
        case _:
            shares.append(1.0)
    return min(1.0, max(shares)) / kind.num_hosts


def price_of_trial(request: Request, num_workers: int, kind: NodeType) -> float | None:
    """Return the US dollars per hour of one trial; None where the node type has no price.

    Args:
        request: what each worker gets.
        num_workers: of the trial.
        kind: where they are.
    """
    if kind.price_per_hour is None:
        return None
    return kind.price_per_hour * share_of(request, kind) * num_workers
