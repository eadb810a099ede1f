"""What happened between two looks at a simulated cluster, told in lines."""

from __future__ import annotations

from collections.abc import Iterator

from kovar.simulation.reasons import UNDECIDED, shown
from kovar.simulation.status import ClusterStatus, Node, Pending

# An idle node is seen once a second or so before the autoscaler stops it.
_SLACK_S = 3.0


def changes(
    before: ClusterStatus | None, after: ClusterStatus, *, idle_timeout_s: float
) -> list[str]:
    """List what changed, a fact a line: launches, nodes that came and went, what waits and why.

    Args:
        before: the earlier look; None for the first.
        after: the later look.
        idle_timeout_s: tells a node that was stopped from one that was lost.
    """
    old = before or ClusterStatus(nodes=(), launching=(), pending=())
    return [
        *_launches(old, after),
        *_arrivals(old, after),
        *_departures(old, after, idle_timeout_s),
        *_waits(old, after),
        *(f"launch failed: {text}" for text in after.failures if text not in old.failures),
    ]


def _launches(old: ClusterStatus, new: ClusterStatus) -> Iterator[str]:
    for launch in new.launching:
        if launch.count > old.num_launching(launch.type):
            yield f"starting {launch.count} × {launch.type}"


def _arrivals(old: ClusterStatus, new: ClusterStatus) -> Iterator[str]:
    known = {node.ray_id for node in old.nodes}
    for node in new.nodes:
        if node.ray_id not in known:
            yield f"{node.id} is up: {_resources(node)}"


def _resources(node: Node) -> str:
    telling = ("CPU", "GPU", "TPU", "memory")
    return shown({name: node.resources[name] for name in telling if name in node.resources})


def _departures(old: ClusterStatus, new: ClusterStatus, idle_timeout_s: float) -> Iterator[str]:
    present = {node.ray_id for node in new.nodes}
    for node in old.nodes:
        if node.ray_id in present:
            continue
        if node.state == "draining" or node.idle_s >= idle_timeout_s - _SLACK_S:
            yield f"{node.id} was idle for {idle_timeout_s:.0f} s and is stopped"
        else:
            yield f"{node.id} is lost, with whatever ran on it"


def _waits(old: ClusterStatus, new: ClusterStatus) -> Iterator[str]:
    told = {_named(one) for one in old.pending}
    for one in new.pending:
        if _named(one) not in told and one.reason != UNDECIDED:
            yield f"waiting: {described(one)}: {one.reason}"


def _named(pending: Pending) -> tuple[str, str]:
    """Tell requests apart; how many nodes are starting for one is told by the launches."""
    reason = pending.reason
    return described(pending), "starting" if reason.startswith("starting") else reason


def described(pending: Pending) -> str:
    """Name a request that waits: what it is, how often, and what it wants."""
    wanted: dict[str, int] = {}
    for bundle, selector in zip(pending.bundles, pending.selectors, strict=True):
        text = f"{{{shown(bundle)}}}{f' on {selector}' if selector else ''}"
        wanted[text] = wanted.get(text, 0) + 1
    bundles = " + ".join(
        f"{count} × {text}" if count > 1 else text for text, count in wanted.items()
    )
    times = f"{pending.count} × " if pending.count > 1 else ""
    strategy = f" ({pending.strategy.lower()})" if pending.strategy else ""
    return f"{times}{pending.kind}{strategy} {bundles}"
