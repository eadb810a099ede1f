"""Where the workers of a batch job run, decided before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kovar.errors import SpecError
from kovar.precision import PlannedPrecision, plan_precision
from kovar.resources import (
    Cluster,
    Demand,
    Placement,
    Request,
    as_written,
    cost_of,
    local_cluster,
    places_of,
    plan_placement,
)

if TYPE_CHECKING:
    from kovar.batch.spec import EvaluateSpec, PredictSpec


@dataclass(frozen=True)
class WorkerPlan:
    """Where the workers go, and at which precision.

    Args:
        placement: the proof; None if the job was not planned.
        request: what each worker gets.
        num_min: fewest workers with which the job runs.
        num_max: most workers that are used.
        precision: as resolved on their chip.
        price_per_hour: US dollars for the nodes that hold them; None when it is not known.
    """

    placement: Placement | None
    request: Request
    num_min: int
    num_max: int
    precision: PlannedPrecision
    price_per_hour: float | None = None

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Kind of chip that a worker computes on."""
        return "cuda" if self.request.kind == "gpu" else "cpu"

    @property
    def num_nodes(self) -> int:
        """Nodes that hold the workers; 1 if the job was not planned."""
        return sum(self.placement.num_nodes.values()) if self.placement else 1

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as the event log and `plan.json` hold them."""
        return {
            "placement": self.placement.to_json() if self.placement else None,
            "request": self.request.model_dump(mode="json"),
            "precision": self.precision.precision,
            "reason": self.precision.reason,
            "device": self.precision.device,
            "cost": {"per_hour": self.price_per_hour},
        }


def worker_demand(spec: EvaluateSpec | PredictSpec) -> Demand:
    """Return what the workers of a job ask for."""
    return Demand.of(spec.resources, name=f"{spec.model} ({spec.kind})")


def plan_workers(spec: EvaluateSpec | PredictSpec, cluster: Cluster | None = None) -> WorkerPlan:
    """Prove that the workers can be placed, and resolve their precision.

    Args:
        spec: the job.
        cluster: the declared cluster; this machine when absent.

    Raises:
        PlacementError: no node type can hold a worker, or there are too few nodes.
        SpecError: the chip cannot compute in the precision asked for.
    """
    demand = worker_demand(spec)
    cluster = local_cluster() if cluster is None else cluster
    return placed_workers(spec, demand.name, plan_placement([demand], cluster), cluster)


def placed_workers(
    spec: EvaluateSpec | PredictSpec, demand: str, placement: Placement, cluster: Cluster
) -> WorkerPlan:
    """Describe a job where a placement, which may hold other work as well, puts its workers.

    Raises:
        SpecError: the chip cannot compute in the precision asked for.
    """
    request = placement.requests[demand]
    node_types = [place.kind for place in places_of(placement, demand, cluster)]
    precision = _checked(plan_precision(spec.precision, request, node_types))
    num_min = spec.resources.num_workers.min
    # Beyond what is declared, nodes may come that this plan cannot see.
    num_max = max(num_min, placement.num_workers(demand))
    price = cost_of(placement, cluster, demand).per_hour
    return WorkerPlan(placement, request, num_min, num_max, precision, price)


def unplanned_workers(spec: EvaluateSpec | PredictSpec) -> WorkerPlan:
    """Take a job as it is written, without a proof that its workers can be placed.

    Raises:
        SpecError: the request leaves open what only a plan decides; or the chip cannot compute in
            the precision asked for.
    """
    number = spec.resources.num_workers
    request = as_written(spec.worker, field="resources.worker")
    precision = _checked(plan_precision(spec.precision, request, []))
    return WorkerPlan(None, request, number.min, number.max, precision)


def _checked(planned: PlannedPrecision) -> PlannedPrecision:
    if planned.precision == "fp8":
        raise SpecError(
            "the torch runtime does not compute in fp8",
            field="precision",
            got="fp8",
            allowed="bf16, fp16, tf32, fp32, auto",
            hint="use bf16 on this chip",
        )
    return planned
