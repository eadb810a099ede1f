"""Hardware requests, node types, the placement plan, and their translation to Ray."""

from kovar.resources.accelerators import (
    ACCELERATORS,
    Accelerator,
    accelerator,
    accelerator_memory,
)
from kovar.resources.cluster import Cluster
from kovar.resources.cluster_reader import read_cluster
from kovar.resources.cost import Cost, cost_of
from kovar.resources.demand import Demand
from kovar.resources.live_cluster import live_cluster
from kovar.resources.local_machine import local_cluster
from kovar.resources.memory_room import MemoryRoom, Place, memory_room, places_of
from kovar.resources.node_type import NodeType
from kovar.resources.plan import NodeGroup, Placement, as_written, plan_placement
from kovar.resources.ray import (
    actor_options,
    replica_options,
    scaling_config_kwargs,
    trial_resources,
)
from kovar.resources.request import (
    CpuRequest,
    GpuRequest,
    NumWorkers,
    PlacementStrategy,
    Request,
    Resources,
    TpuRequest,
    WorkerRange,
)
from kovar.resources.turns import plan_in_turn

__all__ = [
    "ACCELERATORS",
    "Accelerator",
    "Cluster",
    "Cost",
    "CpuRequest",
    "Demand",
    "GpuRequest",
    "MemoryRoom",
    "NodeGroup",
    "NodeType",
    "NumWorkers",
    "Place",
    "Placement",
    "PlacementStrategy",
    "Request",
    "Resources",
    "TpuRequest",
    "WorkerRange",
    "accelerator",
    "accelerator_memory",
    "actor_options",
    "as_written",
    "cost_of",
    "live_cluster",
    "local_cluster",
    "memory_room",
    "places_of",
    "plan_in_turn",
    "plan_placement",
    "read_cluster",
    "replica_options",
    "scaling_config_kwargs",
    "trial_resources",
]
