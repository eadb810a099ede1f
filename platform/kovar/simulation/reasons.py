"""Why a request waits: a pure function of what was declared and what is up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kovar.resources import Cluster, NodeType
from kovar.simulation.autoscaling import host_labels, host_resources
from kovar.simulation.status import ClusterStatus, Pending

UNDECIDED: Final = "the autoscaler has not decided yet"
_SLICE: Final = "ray.io/tpu-slice-name"
_OF_ONE_NODE: Final = (_SLICE, "ray.io/node-id")


def explained(pending: Pending, status: ClusterStatus, cluster: Cluster) -> str:
    """Say why a request waits, in one line.

    The autoscaler only tells whether it has a node to add; what is in the way is found here.
    """
    fitting: dict[str, NodeType] = {}
    for bundle, selector in zip(pending.bundles, pending.selectors, strict=True):
        found = [kind for kind in cluster.node_types if _holds(kind, bundle, selector)]
        if not found:
            return f"no node type has {shown(bundle)}{f' with {selector}' if selector else ''}"
        fitting |= {kind.name: kind for kind in found}
    useful = [f"{one.count} × {one.type}" for one in status.launching if one.type in fitting]
    if useful:
        return f"starting {', '.join(useful)}"
    if not pending.infeasible:
        return UNDECIDED
    if name := _named_slice(pending):
        return f"waiting for the rest of {name}"
    up = ", ".join(_limit(kind, status) for kind in fitting.values())
    if len(pending.bundles) > 1:
        return f"the group does not fit as a whole: {up}"
    return f"no node is free, and no more may be added: {up}"


def shown(bundle: Mapping[str, float]) -> str:
    """Write a bundle for people: "CPU: 2, GPU: 1, memory: 4.0 GiB"."""
    from kovar.config import format_size

    parts = {
        name: format_size(amount) if name.endswith("memory") else f"{amount:g}"
        for name, amount in sorted(bundle.items())
    }
    return ", ".join(f"{name}: {amount}" for name, amount in parts.items())


def _holds(kind: NodeType, bundle: Mapping[str, float], selector: str) -> bool:
    amounts = host_resources(kind)
    if any(amounts.get(name, 0) < amount for name, amount in bundle.items()):
        return False
    labels = host_labels(kind)
    return any(_matches(labels, each) for each in selector.split(" or else "))


def _matches(labels: Mapping[str, str], selector: str) -> bool:
    parts = [part.split("=", 1) for part in selector.split(" and ") if part]
    return all(_is(labels, key, wanted) for key, wanted in parts if key not in _OF_ONE_NODE)


def _named_slice(pending: Pending) -> str | None:
    """Return the slice that a request names: one that is up, at least in part."""
    parts = [part.split("=", 1) for part in pending.selectors[0].split(" and ") if part]
    return next((wanted for key, wanted in parts if key == _SLICE), None)


def _is(labels: Mapping[str, str], key: str, wanted: str) -> bool:
    values = wanted.removeprefix("!").removeprefix("in(").removesuffix(")").split(",")
    return (labels.get(key) in values) is not wanted.startswith("!")


def _limit(kind: NodeType, status: ClusterStatus) -> str:
    most = kind.max_count * kind.num_hosts
    unit = "hosts" if kind.num_hosts > 1 else "nodes"
    return f"{len(status.of_type(kind.name))} of {most} {kind.name} {unit} are up"
