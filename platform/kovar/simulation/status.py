"""What a simulated cluster looks like at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Node:
    """One node that is up: a machine, or one host of a TPU slice.

    Args:
        id: its name in the simulation, for example "gpu-l4-1" or "tpu-v4-1-host-0".
        type: the name of its node type.
        ray_id: Ray's node id.
        state: "busy", "idle" or "draining", as the autoscaler sees it.
        resources: what it has.
        available: what is free.
        idle_s: seconds since it was last used.
        labels: what Ray's scheduler sees.
    """

    id: str
    type: str
    ray_id: str
    state: Literal["busy", "idle", "draining"]
    resources: Mapping[str, float] = field(hash=False)
    available: Mapping[str, float] = field(hash=False)
    idle_s: float
    labels: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True)
class Launch:
    """Nodes of one type that are on their way."""

    type: str
    count: int


@dataclass(frozen=True)
class Pending:
    """A request that waits.

    Args:
        kind: "task or actor", "placement group" or "autoscaler request".
        bundles: what is wanted, one mapping from resource to amount for each bundle.
        selectors: the labels that each bundle wants, as text, "" for none.
        strategy: how a placement group spreads its bundles, "" for others.
        count: how many such requests wait.
        infeasible: whether the autoscaler has no node to add for it.
        reason: why it waits.
    """

    kind: Literal["task or actor", "placement group", "autoscaler request"]
    bundles: tuple[Mapping[str, float], ...] = field(hash=False)
    selectors: tuple[str, ...]
    strategy: str = ""
    count: int = 1
    infeasible: bool = False
    reason: str = ""


@dataclass(frozen=True)
class ClusterStatus:
    """The nodes that are up, those on their way, and what waits.

    Args:
        nodes: the nodes that are up, the head first.
        launching: what the autoscaler has asked for and is not up yet.
        pending: what waits for a node.
        failures: why launches failed, in the autoscaler's words.
    """

    nodes: tuple[Node, ...]
    launching: tuple[Launch, ...]
    pending: tuple[Pending, ...]
    failures: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Read what the keeper observed."""
        return cls(
            nodes=tuple(Node(**node) for node in facts["nodes"]),
            launching=tuple(Launch(**launch) for launch in facts["launching"]),
            pending=tuple(
                Pending(
                    **{
                        **pending,
                        "bundles": tuple(pending["bundles"]),
                        "selectors": tuple(pending["selectors"]),
                    }
                )
                for pending in facts["pending"]
            ),
            failures=tuple(facts["failures"]),
        )

    def of_type(self, name: str) -> tuple[Node, ...]:
        """Return the nodes of one type that are up."""
        return tuple(node for node in self.nodes if node.type == name)

    def num_launching(self, name: str) -> int:
        """Count the nodes of one type that are on their way."""
        return sum(launch.count for launch in self.launching if launch.type == name)
