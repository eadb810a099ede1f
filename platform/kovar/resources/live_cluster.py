"""The cluster that this process is connected to: what is up, and what its autoscaler can add."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kovar.config import Document
from kovar.errors import UserError
from kovar.resources.cluster import Cluster
from kovar.resources.cluster_file import ACCELERATOR_PREFIX, RAY_RESOURCES
from kovar.resources.cluster_reader import read_cluster
from kovar.resources.cluster_state import ClusterState, LiveNode, find_cluster, read_state
from kovar.resources.declaration import Declared, read_labels
from kovar.resources.node_type import NodeType
from kovar.resources.tpu_slice import RAY_TPU_TYPES, TOPOLOGIES, num_hosts

ORIGIN: Final = "the live cluster"

_LOOPBACK: Final = ("127.0.0.1", "localhost")
_TOPOLOGY: Final = "ray.io/tpu-topology"
_SLICE: Final = "ray.io/tpu-slice-name"
_OF_ONE_NODE: Final = ("ray.io/node-id", "ray.io/node-group", "ray.io/tpu-worker-id", _SLICE)
_COUNTED: Final = ("CPU", "GPU", "TPU")


def live_cluster(address: str | None = None, *, root: Path = Path("/")) -> Cluster:
    """Describe a running cluster.

    On the head's machine the autoscaler's own declaration is read, so that nodes that it can still
    add count, with their limits. Elsewhere, and on Kubernetes, the limits are not known: where an
    autoscaler reports, the cluster `can_grow`.

    Args:
        address: host:port of its head; the cluster of this process by default.
        root: where /proc is; another folder in tests.

    Raises:
        UserError: no cluster answers; in less than two seconds if nothing listens.
    """
    address = address or find_cluster()
    return describe(read_state(address), find_monitor(address, root))


@dataclass(frozen=True)
class Monitor:
    """The process beside the head that may be the autoscaler.

    Args:
        adds_nodes: whether it is; else it only watches.
        declared: what it may add; None if that is not known.
    """

    adds_nodes: bool
    declared: Cluster | None = None


def find_monitor(address: str, root: Path = Path("/")) -> Monitor | None:
    """Find the monitor of a cluster among this machine's processes; None if it runs elsewhere.

    Args:
        address: host:port of the cluster's head.
        root: where /proc is; another folder in tests.
    """
    for command in _commands(root):
        options = dict(part.partition("=")[::2] for part in command)
        if not any(part.endswith("/monitor.py") for part in command) or not _same(
            options.get("--gcs-address", ""), address
        ):
            continue
        config = options.get("--autoscaling-config")
        if not config:
            return Monitor(adds_nodes=False)
        try:
            return Monitor(adds_nodes=True, declared=read_cluster(Path(config).expanduser()))
        except UserError as error:
            logging.getLogger(__name__).warning("the autoscaler's limits are unknown: %s", error)
            return Monitor(adds_nodes=True)
    return None


def _same(address: str, other: str) -> bool:
    """Compare host:port; Ray itself writes a machine's network address for its loopback."""
    (host, _, port), (other_host, _, other_port) = address.rpartition(":"), other.rpartition(":")
    if port != other_port:
        return False
    hosts = {other_host}
    with suppress(OSError):
        hosts.add(socket.gethostbyname(other_host))
    return host in hosts or other_host in _LOOPBACK


def _commands(root: Path) -> Iterator[list[str]]:
    """Yield the command lines of this user's and root's processes: others may claim anything."""
    for process in (root / "proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if process.stat().st_uid in (0, os.getuid()):
                yield (process / "cmdline").read_text(errors="replace").split("\0")


def describe(state: ClusterState, monitor: Monitor | None) -> Cluster:
    """Combine what is up with what the monitor says can be added."""
    if monitor is None:
        return _of_nodes(state, can_grow=state.has_autoscaler)
    if monitor.declared is None:
        return _of_nodes(state, can_grow=monitor.adds_nodes)
    return _with_nodes(monitor.declared, state)


def _of_nodes(state: ClusterState, *, can_grow: bool) -> Cluster:
    types = tuple(_node_types(state.nodes))
    return Cluster(types, origin=ORIGIN, can_grow=can_grow, in_use=_in_use(state.nodes))


def _with_nodes(declared: Cluster, state: ClusterState) -> Cluster:
    """Count the nodes that are up among the declared ones; others are types of their own."""
    members: dict[str, list[LiveNode]] = defaultdict(list)
    strange: list[LiveNode] = []
    for node in state.nodes:
        kind = _declared_type(node, declared.node_types)
        (strange if kind is None else members[kind.name]).append(node)
    types = [_with_members(kind, members[kind.name]) for kind in declared.node_types]
    return replace(
        declared,
        node_types=(*types, *_node_types(strange)),
        origin=ORIGIN,
        in_use=_in_use(state.nodes),
    )


def _declared_type(node: LiveNode, types: Iterable[NodeType]) -> NodeType | None:
    """Find the type of a node by its name, else (the older autoscaler names none) by its content.

    Ray may find a little less memory than is declared, so memory does not count.
    """
    for kind in types:
        if node.type_name == kind.name or (node.is_head and kind.is_head):
            return kind
    facts = _facts(node)
    compared = ("cpus", "gpu_types", "num_gpus", "tpu_type", "tpu_topology", "num_tpu_chips")
    for kind in types:
        own = {name: getattr(kind, name) for name in compared}
        if not node.type_name and not kind.is_head and own == {k: facts.get(k) for k in compared}:
            return kind
    return None


def _with_members(kind: NodeType, nodes: list[LiveNode]) -> NodeType:
    """Let the nodes that are up count as such, with the memory that they really have."""
    if not nodes:
        return kind
    num_up = _num_up(nodes, kind.num_hosts)
    return replace(
        kind,
        min_count=max(kind.min_count, num_up),
        max_count=max(kind.max_count, num_up),
        memory_bytes=_least_memory(nodes) if kind.memory_bytes is None else kind.memory_bytes,
    )


def _node_types(nodes: Iterable[LiveNode]) -> Iterator[NodeType]:
    """Group nodes into types: by the name of their type, else by what they have."""
    groups: dict[Any, list[LiveNode]] = defaultdict(list)
    for node in nodes:
        groups[node.type_name or str(_facts(node))].append(node)
    for number, members in enumerate(groups.values(), start=1):
        first = members[0]
        facts = _facts(first)
        hosts = num_hosts(facts["tpu_topology"]) if facts["tpu_topology"] else 1
        num_up = _num_up(members, hosts)
        if num_up:
            yield NodeType(
                name=first.type_name or (f"nodes-{number}" if len(groups) > 1 else "node"),
                memory_bytes=_least_memory(members),
                min_count=num_up,
                max_count=num_up,
                **facts,
            )


def _num_up(nodes: list[LiveNode], hosts: int) -> int:
    """Count nodes, or whole TPU slices: one that lacks a host holds no work."""
    if hosts == 1:
        return len(nodes)
    slices = Counter(node.labels.get(_SLICE) for node in nodes)
    return sum(count // hosts for name, count in slices.items() if name)


def _least_memory(nodes: list[LiveNode]) -> int | None:
    amounts = [node.resources["memory"] for node in nodes if "memory" in node.resources]
    return int(min(amounts)) if amounts else None


def _facts(node: LiveNode) -> dict[str, Any]:
    """Say what a node has, in a node type's words; its memory differs from one to the next."""
    amounts = {
        name: amount
        for name, amount in node.resources.items()
        if not name.startswith("node:") and name != node.labels.get(_SLICE)
    }
    types = sorted(
        key.removeprefix(ACCELERATOR_PREFIX)
        for key in amounts
        if key.startswith(ACCELERATOR_PREFIX)
    )
    tpu = next((kind for kind, name in RAY_TPU_TYPES.items() if name in types), None)
    topology = node.labels.get(_TOPOLOGY)
    known = tpu is not None and topology in TOPOLOGIES[tpu] and bool(amounts.get("TPU"))
    declared = _declared(node.labels)
    return {
        "cpus": amounts.get("CPU", 0.0),
        "gpu_types": tuple(types) if amounts.get("GPU") else (),
        "num_gpus": int(amounts.get("GPU", 0)),
        "accelerator_memory_bytes": declared.gpu_memory_bytes,
        "tpu_type": tpu if known else None,
        "tpu_topology": topology if known else None,
        "num_tpu_chips": int(amounts["TPU"]) if known else 0,
        "disk_bytes": declared.disk_bytes,
        "custom_resources": {
            name: amount
            for name, amount in amounts.items()
            if name not in RAY_RESOURCES and not name.startswith((ACCELERATOR_PREFIX, "TPU-"))
        },
        "interconnect": declared.interconnect,
        "price_per_hour": declared.price_per_hour,
        "spot": declared.spot or node.labels.get("ray.io/market-type") == "spot",
        "labels": {k: v for k, v in node.labels.items() if k not in _OF_ONE_NODE},
        "is_head": node.is_head,
    }


def _declared(labels: Mapping[str, str]) -> Declared:
    try:
        return read_labels(Document.of({"labels": labels}), ("labels",))[1]
    except UserError as error:
        logging.getLogger(__name__).warning("labels of a node are ignored: %s", error)
        return Declared()


def _in_use(nodes: Iterable[LiveNode]) -> dict[str, tuple[float, float]]:
    """Sum up what is in use, and what there is, over all nodes."""
    total: Counter[str] = Counter()
    free: Counter[str] = Counter()
    for node in nodes:
        for name in _COUNTED:
            total[name] += node.resources.get(name, 0.0)  # type: ignore[assignment]
            free[name] += node.available.get(name, 0.0)  # type: ignore[assignment]
    return {name: (amount - free[name], amount) for name, amount in total.items() if amount}
