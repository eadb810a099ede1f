"""Hardware requests, node types, the placement plan, and their translation to Ray."""

from kovar.resources.cluster_file import read_cluster
from kovar.resources.demand import Demand
from kovar.resources.live_cluster import live_node_types
from kovar.resources.local_machine import local_node_types
from kovar.resources.node_type import NodeType
from kovar.resources.plan import Placement, plan_placement
from kovar.resources.ray import actor_options, scaling_config_kwargs
from kovar.resources.request import (
    CpuRequest,
    GpuRequest,
    NumWorkers,
    Request,
    Resources,
    TpuRequest,
    WorkerRange,
)

__all__ = [
    "CpuRequest",
    "Demand",
    "GpuRequest",
    "NodeType",
    "NumWorkers",
    "Placement",
    "Request",
    "Resources",
    "TpuRequest",
    "WorkerRange",
    "actor_options",
    "live_node_types",
    "local_node_types",
    "plan_placement",
    "read_cluster",
    "scaling_config_kwargs",
]
