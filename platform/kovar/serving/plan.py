"""Where the replicas of an application would run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kovar.config import format_size
from kovar.errors import SpecError
from kovar.inference.memory import ServingMemory, estimate_serving
from kovar.precision import PlannedPrecision, Precision, plan_precision
from kovar.resources import (
    Cluster,
    Demand,
    MemoryRoom,
    Placement,
    Request,
    memory_room,
    places_of,
    plan_placement,
)
from kovar.serving.spec import ServingSpec

TOLERANCE = 1.2
"""Estimates are right within 20 %: replicas are refused only if they cannot fit even so."""


@dataclass(frozen=True)
class ReplicaPlan:
    """Where the replicas of an application go, and at which precision.

    Args:
        request: what each replica gets: one accelerator type, a number of GPUs.
        precision: as resolved on its chip.
        room: memory that a replica can count on; None when it is not known.
        memory: what it needs; None when the model is not known.
    """

    request: Request
    precision: PlannedPrecision
    room: MemoryRoom | None
    memory: ServingMemory | None

    @property
    def fits(self) -> bool:
        """Whether the estimate is within the room, where both are known."""
        known = self.room is not None and self.memory is not None
        return not known or self.memory.total <= self.room.size_bytes  # type: ignore[union-attr]


def replica_demand(spec: ServingSpec, *, name: str) -> Demand:
    """Return what the replicas of an application ask for."""
    return Demand(
        name=name,
        field="replica",
        request=spec.replica,
        num_min=max(1, spec.num_replicas.min),  # an application that sleeps must be able to wake
        num_max=spec.num_replicas.max,
        num_field="num_replicas",
        placement=spec.placement,
    )


def plan_replicas(
    spec: ServingSpec,
    cluster: Cluster,
    *,
    config: Mapping[str, Any] | None,
    max_length: int,
    more_weights: int = 0,
) -> ReplicaPlan:
    """Prove that the fewest replicas can be placed, and resolve their precision.

    Args:
        spec: the application.
        cluster: where it is deployed.
        config: the model's config.json; None when it is not known.
        max_length: longest input of the model in tokens.
        more_weights: bytes of the application's further models; see `further_weights`.

    Raises:
        PlacementError: no node type can hold a replica, or there are too few nodes.
        SpecError: the chip cannot compute in the precision asked for, or has too little memory.
    """
    demand = replica_demand(spec, name=spec.model)
    placement = plan_placement([demand], cluster)
    return placed_replicas(
        spec,
        demand.name,
        placement,
        cluster,
        config=config,
        max_length=max_length,
        more_weights=more_weights,
    )


def placed_replicas(
    spec: ServingSpec,
    demand: str,
    placement: Placement,
    cluster: Cluster,
    *,
    config: Mapping[str, Any] | None,
    max_length: int,
    more_weights: int = 0,
) -> ReplicaPlan:
    """Describe replicas where a placement, which may hold other work as well, puts them.

    Raises:
        SpecError: the chip cannot compute in the precision asked for, or has too little memory.
    """
    request = placement.requests[demand]
    places = places_of(placement, demand, cluster)
    kinds = [place.kind for place in places]
    precision = plan_precision(_planned(spec), request, kinds, is_here=cluster.is_here)
    room = memory_room(request, places)
    memory = None
    if config is not None and precision.precision not in ("auto", "fp8"):
        memory = estimate_serving(
            config,
            spec.batching,
            max_length=max_length,
            num_labels=2,
            precision=precision.precision,
            device_kind=spec.device,
        )
    if memory is not None:
        memory = replace(memory, weights=memory.weights + more_weights)
    plan = ReplicaPlan(request, precision, room, memory)
    _check_memory(plan)
    return plan


def _planned(spec: ServingSpec) -> Precision:
    """Return the precision whose memory a replica is sure not to exceed."""
    if spec.precision == "int8" or (spec.precision == "auto" and spec.runtime == "onnx"):
        return "fp32"
    return spec.precision


def _check_memory(plan: ReplicaPlan) -> None:
    if plan.memory is None or plan.room is None:
        return
    if plan.memory.total <= plan.room.size_bytes * TOLERANCE:
        return
    on_cpu = plan.request.kind == "cpu"
    raise SpecError(
        f"a replica needs about {format_size(plan.memory.total)}; there are {plan.room}",
        field=f"replica.{plan.room.field or ('memory' if on_cpu else 'type')}",
        got=format_size(plan.room.size_bytes),
        allowed=f"at least {format_size(plan.memory.total)}",
        hint=f"reserve it with replica.memory: {-(-plan.memory.total // (1 << 20))}MiB, "
        "or lower batching.max_tokens"
        if on_cpu
        else "ask for a larger card or more memory, or lower batching.max_tokens",
    )
