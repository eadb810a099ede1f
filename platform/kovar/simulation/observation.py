"""The autoscaler's own state as plain JSON; runs where Ray's client may be loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from kovar.simulation.autoscaling import HEAD_ID

_RPC_TIMEOUT_S: Final = 10
_STATES: Final = {"RUNNING": "busy", "IDLE": "idle", "DRAINING": "draining"}


def observe(gcs_address: str) -> dict[str, Any] | None:
    """Ask the head for the nodes, the launches and what waits.

    Returns:
        The fields of `ClusterStatus`; None until the autoscaler has reported.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply()
    reply.ParseFromString(GcsClient(gcs_address).get_cluster_status(timeout_s=_RPC_TIMEOUT_S))
    scaling, cluster = reply.autoscaling_state, reply.cluster_resource_state
    if not scaling.autoscaler_state_version:
        return None
    launching: Counter[str] = Counter()
    for request in scaling.pending_instance_requests:
        launching[request.ray_node_type_name] += request.count
    for instance in scaling.pending_instances:
        launching[instance.ray_node_type_name] += 1
    nodes = _nodes(cluster.node_states)
    for head in (node for node in nodes if node["id"] == HEAD_ID):
        del launching[head["type"]]  # the autoscaler takes a moment to see that it is up
    return {
        "nodes": nodes,
        "launching": [{"type": name, "count": count} for name, count in launching.items()],
        "pending": _pending(cluster, scaling),
        "failures": [f"{one.ray_node_type_name}: {one.reason}" for one in _failed(scaling)],
    }


def _nodes(states: Iterable[Any]) -> list[dict[str, Any]]:
    from ray.core.generated.autoscaler_pb2 import NodeStatus

    found = [
        {
            "id": node.instance_id,
            "type": node.ray_node_type_name,
            "ray_id": node.node_id.hex(),
            "state": _STATES[NodeStatus.Name(node.status)],
            "resources": dict(node.total_resources),
            "available": dict(node.available_resources),
            "idle_s": node.idle_duration_ms / 1000,
            "labels": dict(node.labels),
        }
        for node in states
        if NodeStatus.Name(node.status) in _STATES
    ]
    return sorted(found, key=lambda node: (node["id"] != HEAD_ID, node["type"], node["id"]))


def _pending(cluster: Any, scaling: Any) -> list[dict[str, Any]]:
    impossible = [_wanted(request) for request in scaling.infeasible_resource_requests]
    impossible_gangs = [one.details for one in scaling.infeasible_gang_resource_requests]
    alone = [
        _request("task or actor", [one.request], one.count, _wanted(one.request) in impossible)
        for one in cluster.pending_resource_requests
    ]
    gangs = []
    for gang in cluster.pending_gang_resource_requests:
        selections = gang.bundle_selectors
        requests = selections[0].resource_requests if selections else gang.requests
        pending = _request("placement group", requests, 1, gang.details in impossible_gangs)
        gangs.append({**pending, "strategy": gang.details.partition(":")[2].partition("|")[0]})
    return alone + gangs


def _request(kind: str, requests: Iterable[Any], count: int, infeasible: bool) -> dict[str, Any]:
    wanted = [_wanted(request) for request in requests]
    return {
        "kind": kind,
        "bundles": [bundle for bundle, _ in wanted],
        "selectors": [selector for _, selector in wanted],
        "count": count,
        "infeasible": infeasible,
    }


def _wanted(request: Any) -> tuple[dict[str, float], str]:
    selectors = [_selector(selector) for selector in request.label_selectors]
    return dict(request.resources_bundle), " or else ".join(selectors)


def _selector(selector: Any) -> str:
    parts = []
    for constraint in selector.label_constraints:
        values = list(constraint.label_values)
        text = values[0] if len(values) == 1 else f"in({','.join(values)})"
        parts.append(f"{constraint.label_key}={'!' if constraint.operator == 2 else ''}{text}")
    return " and ".join(sorted(parts))


def _failed(scaling: Any) -> list[Any]:
    return list(scaling.failed_instance_requests)
