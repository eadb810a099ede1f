"""A cluster as a plan sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kovar.resources.node_type import NodeType

THIS_MACHINE: Final = "this machine"


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
        in_use: what other work holds now of CPU, GPU and TPU: amount in use, amount in all. A plan
            counts all of it as free: whoever waits for work to end is not impossible.
    """

    node_types: tuple[NodeType, ...]
    max_workers: int | None = None
    idle_timeout_s: float | None = None
    origin: str = "the cluster"
    can_grow: bool = False
    limit_name: str = "max_workers"
    in_use: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)

    @property
    def is_here(self) -> bool:
        """Whether it is the machine that plans, so that what is found here holds there."""
        return self.origin == THIS_MACHINE

    @property
    def busy(self) -> str:
        """Say what other work holds now, "" for nothing: "3 of 8 GPUs, 10 of 64 CPUs"."""
        shown = [
            f"{used:g} of {total:g} {name if name == 'TPU' else f'{name}s'}"
            for name, (used, total) in sorted(self.in_use.items(), reverse=True)
            if used
        ]
        return ", ".join(shown)
