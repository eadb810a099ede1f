"""The autoscaler's configuration for a declared cluster, in the words of Ray's cluster.yaml."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from kovar.errors import UserError
from kovar.resources import Cluster, NodeType
from kovar.resources.tpu_slice import RAY_TPU_TYPES, num_chips, num_cores_per_chip

HEAD_ID: Final = "head"
PROVIDER: Final = "kovar.simulation.provider.SimulatedNodeProvider"

# Ray asks for them even where nothing is copied or installed.
_LISTS: Final = (
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
_TPU_LABEL: Final = "ray.io/tpu-"
_ACCELERATOR_LABEL: Final = "ray.io/accelerator-type"
_RESERVED: Final = ("ray.io/node-id", "ray.io/node-group")


def autoscaling_config(
    cluster: Cluster, *, gcs_address: str, folder: str, idle_timeout_s: float
) -> dict[str, Any]:
    """Translate a cluster for Ray's autoscaler, with our node provider.

    Ray counts hosts where Kovar counts slices: a slice of four hosts is four of Ray's nodes, which
    the provider starts and stops together.

    Args:
        cluster: the declaration.
        gcs_address: where the nodes find the head.
        folder: where the provider keeps a file for each node.
        idle_timeout_s: seconds after which an idle node stops.
    """
    return {
        "cluster_name": "simulation",
        "max_workers": _max_hosts(cluster),
        "idle_timeout_minutes": idle_timeout_s / 60,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "gcs_address": gcs_address,
            "folder": folder,
            "head_node_id": HEAD_ID,
            "head_node_type": head_type(cluster).name,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        **{name: [] for name in _LISTS},
        "auth": {},
        "file_mounts": {},
        "head_node_type": head_type(cluster).name,
        "available_node_types": {kind.name: _node_type(kind) for kind in cluster.node_types},
    }


def head_type(cluster: Cluster) -> NodeType:
    """Return the type of the head node.

    Raises:
        UserError: the cluster has none.
    """
    for kind in cluster.node_types:
        if kind.is_head:
            return kind
    raise UserError(f"{cluster.origin} has no head node", hint="declare a head node type")


def _max_hosts(cluster: Cluster) -> int:
    workers = {kind: kind.max_count - kind.is_head for kind in cluster.node_types}
    hosts = sum(count * kind.num_hosts for kind, count in workers.items())
    if cluster.max_workers is None:
        return hosts
    # The limit counts a slice once, Ray counts its hosts: the largest slices are allowed for.
    sizes = sorted(
        (kind.num_hosts for kind, count in workers.items() for _ in range(count)), reverse=True
    )
    return sum(sizes[: cluster.max_workers])


def _node_type(kind: NodeType) -> dict[str, Any]:
    head = 1 if kind.is_head else 0
    return {
        "resources": host_resources(kind),
        "labels": host_labels(kind),
        "min_workers": (kind.min_count - head) * kind.num_hosts,
        "max_workers": (kind.max_count - head) * kind.num_hosts,
        "node_config": {
            "hosts": kind.num_hosts,
            "environment": tpu_environment(kind),
            "detected_labels": detected_labels(kind),
        },
    }


def host_resources(kind: NodeType) -> dict[str, float]:
    """Return what Ray's scheduler is told of one host.

    Ray wants whole numbers of what a node has.
    """
    amounts: dict[str, float] = {"CPU": math.ceil(kind.cpus)}
    if kind.memory_bytes is not None:
        amounts["memory"] = kind.memory_bytes
    if kind.num_gpus:
        amounts["GPU"] = kind.num_gpus
        amounts |= {f"accelerator_type:{name}": 1 for name in kind.gpu_types}
    if kind.tpu_type is not None:
        amounts["TPU"] = kind.num_tpu_chips
        amounts[f"accelerator_type:{RAY_TPU_TYPES[kind.tpu_type]}"] = 1
        # The first host of each slice has it; the autoscaler must know to add a slice for it.
        amounts[f"TPU-{_pod_type(kind)}-head"] = 1
    return amounts | {name: math.ceil(amount) for name, amount in kind.custom_resources.items()}


def host_labels(kind: NodeType) -> dict[str, str]:
    """Return the labels by which the autoscaler chooses: the declared ones, and those of slices.

    As in a cloud, it does not know those that Ray detects once a node is up.
    """
    labels = {key: value for key, value in kind.labels.items() if key not in _RESERVED}
    if kind.tpu_type is not None:
        labels |= {
            _ACCELERATOR_LABEL: RAY_TPU_TYPES[kind.tpu_type],
            f"{_TPU_LABEL}topology": str(kind.tpu_topology),
            f"{_TPU_LABEL}pod-type": _pod_type(kind),
            f"{_TPU_LABEL}worker-id": "0",
        }
    return labels


def detected_labels(kind: NodeType) -> dict[str, str]:
    """Return the labels that Ray's look at the hardware would add to a node that is up."""
    return {_ACCELERATOR_LABEL: kind.gpu_types[0]} if kind.gpu_types else {}


def tpu_environment(kind: NodeType) -> dict[str, str]:
    """Return what Google sets on the hosts of a TPU slice, and Ray reads there."""
    if kind.tpu_type is None:
        return {}
    return {"TPU_ACCELERATOR_TYPE": _pod_type(kind), "TPU_TOPOLOGY": str(kind.tpu_topology)}


def without_slice_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Drop the labels that differ from host to host of a slice: Ray sets them from environment."""
    return {key: value for key, value in labels.items() if not key.startswith(_TPU_LABEL)}


def _pod_type(kind: NodeType) -> str:
    """Name a slice as Ray does: "v4-16" is v4 with eight chips of two cores."""
    if kind.tpu_type is None or kind.tpu_topology is None:
        raise ValueError(f"{kind.name} has no TPU")
    generation = RAY_TPU_TYPES[kind.tpu_type].removeprefix("TPU-").lower()
    cores = num_chips(kind.tpu_topology) * num_cores_per_chip(kind.tpu_type)
    return f"{generation}-{cores}"
