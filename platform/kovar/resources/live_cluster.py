"""The cluster that this process is connected to, as node types."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kovar.errors import UserError
from kovar.resources.cluster import Cluster
from kovar.resources.cluster_reader import read_cluster
from kovar.resources.node_type import NodeType

BOOTSTRAP_FILE: Final = "ray_bootstrap_config.yaml"
"""Where `ray up` leaves the cluster's declaration in the head's home folder."""

_ACCELERATOR: Final = "accelerator_type:"


def live_cluster(*, home: Path | None = None) -> Cluster:
    """Describe the connected cluster; Ray must be initialized.

    A head that `ray up` made holds the declaration, so nodes that the autoscaler can still add
    count. Elsewhere the nodes that are up are all there is.

    Args:
        home: the home folder of the head.
    """
    import ray

    declared = (home or Path.home()) / BOOTSTRAP_FILE
    if declared.exists():
        try:
            return replace(read_cluster(declared), origin="the live cluster")
        except UserError as error:
            logging.getLogger(__name__).warning("planning with the nodes that are up: %s", error)
    return Cluster(node_types_of(ray.nodes()), origin="the live cluster")


def node_types_of(nodes: list[dict[str, Any]]) -> tuple[NodeType, ...]:
    """Group what `ray.nodes()` lists: nodes of equal resources are of one type."""
    alive = [node for node in nodes if node["Alive"]]
    counts = Counter(_without_name(node) for node in alive)
    return tuple(
        NodeType(
            name=f"nodes-{number}" if len(counts) > 1 else "node",
            min_count=count,
            max_count=count,
            is_head=False,
            **dict(facts),
        )
        for number, (facts, count) in enumerate(counts.items(), start=1)
    )


def _without_name(node: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    resources, labels = node["Resources"], node.get("Labels") or {}
    types = sorted(
        key.removeprefix(_ACCELERATOR) for key in resources if key.startswith(_ACCELERATOR)
    )
    facts: dict[str, Any] = {
        "cpus": resources.get("CPU", 0.0),
        "memory_bytes": int(resources["memory"]) if "memory" in resources else None,
        "gpu_types": tuple(types) if resources.get("GPU") else (),
        "num_gpus": int(resources.get("GPU", 0)),
    }
    if resources.get("TPU"):
        generation = re.match(r"TPU-V(\w+)", labels.get("ray.io/accelerator-type", ""))
        facts |= {
            "tpu_type": f"v{generation[1].lower()}" if generation else None,
            "tpu_topology": labels.get("ray.io/tpu-topology"),
            "num_tpu_chips": int(resources["TPU"]),
        }
    return tuple(sorted(facts.items()))
