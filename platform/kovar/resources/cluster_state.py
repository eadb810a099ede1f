"""What a running cluster says of itself: its nodes, what waits, and what is on its way."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kovar.errors import UserError

PROBE_TIMEOUT_S: Final = 1.0
RPC_TIMEOUT_S: Final = 10.0
_STATUS_KEY: Final = b"__autoscaling_status"
_NODE_GROUP: Final = "ray.io/node-group"
_UNDECLARED: Final = "node_"
"""How the monitor of a cluster without an autoscaler begins the "type" of each node."""


@dataclass(frozen=True)
class LiveNode:
    """A node that is up.

    Args:
        type_name: its node type, where an autoscaler or KubeRay started it, else "".
        resources: what Ray schedules on it, without the resources of placement groups.
        available: how much of that is free now.
        labels: its Ray labels.
    """

    type_name: str
    resources: Mapping[str, float] = field(hash=False)
    available: Mapping[str, float] = field(hash=False)
    labels: Mapping[str, str] = field(hash=False)

    @property
    def is_head(self) -> bool:
        """Whether it is the head node."""
        return "node:__internal_head__" in self.resources


@dataclass(frozen=True)
class ClusterState:
    """A cluster at one moment.

    Args:
        nodes: those that are up.
        launching: node type → nodes that the autoscaler has asked for and that are not up yet.
        failures: why launches failed, in the autoscaler's words.
        infeasible: placement groups (hex ids) for which the autoscaler has no node to add.
        has_autoscaler: whether an autoscaler reports that may add nodes.
    """

    nodes: tuple[LiveNode, ...]
    launching: Mapping[str, int] = field(default_factory=dict, hash=False)
    failures: tuple[str, ...] = ()
    infeasible: frozenset[str] = frozenset()
    has_autoscaler: bool = False


def find_cluster() -> str:
    """Return the address of the cluster of this process: host and port of its control store.

    It is the one that this process is connected to, else the one that `RAY_ADDRESS` names, else
    one that runs on this machine.

    Raises:
        UserError: there is none, or nothing answers there.
    """
    import ray

    if ray.is_initialized():
        address: str = ray.get_runtime_context().gcs_address
        return address
    return named_cluster(os.environ.get("RAY_ADDRESS", "auto"))


def named_cluster(named: str) -> str:
    """Return the address of a cluster by its name, "host:port" or "auto", if it answers.

    Raises:
        UserError: there is none, or nothing answers there.
    """
    if named == "auto":
        from ray._private.services import find_gcs_addresses

        running = sorted(find_gcs_addresses())
        if len(running) != 1:
            raise UserError(
                f"{len(running) or 'no'} Ray clusters run on this machine",
                got=", ".join(running) or None,
                hint="set RAY_ADDRESS to host:port of the cluster's head",
            )
        named = running[0]
    if "://" in named:
        raise UserError(
            "only host:port of a cluster's head can be asked for its nodes",
            field="RAY_ADDRESS",
            got=named,
            hint="run it there: ray job submit -- kovar plan SPEC --live",
        )
    _check_that_something_listens(named)
    return named


def _check_that_something_listens(address: str) -> None:
    """Refuse a dead address at once: Ray's own client tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S).close()
    except (OSError, ValueError) as problem:
        raise UserError(
            f"no Ray cluster answers: {problem}",
            field="RAY_ADDRESS",
            got=address,
            allowed="host:port of a cluster's head",
            hint="start one (ray start --head, or ray up cluster.yaml), or correct RAY_ADDRESS",
        ) from None


def read_state(address: str) -> ClusterState:
    """Ask the control store at an address, once.

    Raises:
        UserError: it refuses this process, or is no Ray 2.60.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import RayError

    try:
        client = GcsClient(address=address)
        reply = client.get_cluster_status(timeout_s=RPC_TIMEOUT_S)
        legacy = client.internal_kv_get(_STATUS_KEY, None, timeout=RPC_TIMEOUT_S)
    except (RayError, RuntimeError) as problem:
        raise UserError(
            f"the Ray cluster does not answer: {problem}",
            field="RAY_ADDRESS",
            got=address,
            hint="a cluster with token authentication wants RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
        ) from None
    return parse_state(reply, json.loads(legacy) if legacy else {})


def parse_state(reply: bytes, legacy: Mapping[str, Any]) -> ClusterState:
    """Read a serialized `GetClusterStatusReply`, and the report of an autoscaler of version 1."""
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply, NodeStatus

    status = GetClusterStatusReply.FromString(reply)
    nodes = tuple(
        LiveNode(
            node.ray_node_type_name or node.labels.get(_NODE_GROUP, ""),
            _own(node.total_resources),
            _own(node.available_resources),
            dict(node.labels),
        )
        for node in status.cluster_resource_state.node_states
        if node.status != NodeStatus.DEAD
    )
    scaling = status.autoscaling_state
    if not scaling.autoscaler_state_version:
        return _with_report(nodes, legacy.get("autoscaler_report") or {})
    launching: Counter[str] = Counter()
    for request in scaling.pending_instance_requests:
        launching[request.ray_node_type_name] += request.count
    for instance in scaling.pending_instances:
        launching[instance.ray_node_type_name] += 1
    return ClusterState(
        nodes,
        launching,
        tuple(
            f"{one.ray_node_type_name}: {one.reason}" for one in scaling.failed_instance_requests
        ),
        frozenset(
            gang.details.partition(":")[0] for gang in scaling.infeasible_gang_resource_requests
        ),
        # Whoever starts Ray by hand gives its nodes no type.
        has_autoscaler=any(node.type_name for node in nodes),
    )


def _with_report(nodes: tuple[LiveNode, ...], report: Mapping[str, Any]) -> ClusterState:
    """Add what an autoscaler of version 1 reports: launches, but nothing on what cannot be."""
    known = {*(report.get("active_nodes") or {}), *(report.get("idle_nodes") or {})}
    launching: Counter[str] = Counter(report.get("pending_launches") or {})
    launching.update(kind for _, kind, *_ in report.get("pending_nodes") or [])
    return ClusterState(
        nodes,
        launching,
        tuple(f"{kind}: failed" for _, kind in report.get("failed_nodes") or []),
        has_autoscaler=any(not name.startswith(_UNDECLARED) for name in known | {*launching}),
    )


def _own(resources: Mapping[str, float]) -> dict[str, float]:
    """Leave out what placement groups add: each has resources of its own name."""
    return {name: amount for name, amount in resources.items() if "_group_" not in name}
