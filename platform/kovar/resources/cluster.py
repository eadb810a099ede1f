"""A cluster as a plan sees it."""

from __future__ import annotations

from dataclasses import dataclass

from kovar.resources.node_type import NodeType


@dataclass(frozen=True)
class Cluster:
    """The node types of a cluster, and the limits on all of them together.

    Args:
        node_types: the kinds of machine, in the order of the declaration.
        max_workers: most nodes of all types together, the head not counted; None for no limit.
        idle_timeout_s: seconds after which an idle worker node stops; None where none stops.
        origin: what a person calls it, for example "cluster.yaml" or "this machine".
        can_grow: whether nodes may be added that `node_types` does not list.
        limit_name: what the declaration calls the most nodes of one type.
    """

    node_types: tuple[NodeType, ...]
    max_workers: int | None = None
    idle_timeout_s: float | None = None
    origin: str = "the cluster"
    can_grow: bool = False
    limit_name: str = "max_workers"
