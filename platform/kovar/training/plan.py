"""What a run will do, decided before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kovar.errors import SpecError
from kovar.precision import PlannedPrecision, plan_precision
from kovar.resources import (
    Cluster,
    Demand,
    Placement,
    as_written,
    cost_of,
    local_cluster,
    memory_room,
    places_of,
    plan_placement,
)
from kovar.training.parallel import check_parallelism
from kovar.training.recovery import check_weights

if TYPE_CHECKING:
    from kovar.resources import MemoryRoom, Request
    from kovar.training.spec import FineTuneSpec


@dataclass(frozen=True)
class RunPlan:
    """Where a run would execute and at which precision.

    Args:
        placement: the proof; None if the run was not planned.
        request: what each worker gets: one accelerator type, a number of GPUs.
        precision: as resolved on its chip.
        room: memory that a worker can count on; None when it is not known.
        price_per_hour: US dollars for the nodes that hold it; None when it is not known.
    """

    placement: Placement | None
    request: Request
    precision: PlannedPrecision
    room: MemoryRoom | None = None
    price_per_hour: float | None = None

    @property
    def device(self) -> str:
        """Name of the chip."""
        return self.precision.device

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as written to the run's `plan.json`."""
        return {
            "placement": self.placement.to_json() if self.placement else None,
            "request": self.request.model_dump(mode="json"),
            "precision": self.precision.precision,
            "reason": self.precision.reason,
            "device": self.device,
            "cost": {"per_hour": self.price_per_hour},
        }


def plan_run(spec: FineTuneSpec, cluster: Cluster | None = None) -> RunPlan:
    """Prove that a run can be placed, and resolve its precision.

    Args:
        spec: the run.
        cluster: the declared cluster; this machine when absent.

    Raises:
        PlacementError: no node type can hold a worker, or there are too few nodes.
        SpecError: the chip cannot compute in the precision asked for.
    """
    demand = Demand.of(spec.resources, name=spec.name)
    cluster = local_cluster() if cluster is None else cluster
    return placed_run(spec, demand.name, plan_placement([demand], cluster), cluster)


def placed_run(spec: FineTuneSpec, demand: str, placement: Placement, cluster: Cluster) -> RunPlan:
    """Describe a run where a placement, which may hold other work as well, puts it.

    Raises:
        SpecError: the chip cannot compute in the precision asked for.
    """
    request = placement.requests[demand]
    places = places_of(placement, demand, cluster)
    kinds = [place.kind for place in places]
    precision = plan_precision(spec.precision, request, kinds, is_here=cluster.is_here)
    check_engine(spec, precision)
    price = cost_of(placement, cluster, demand).per_hour
    return RunPlan(placement, request, precision, memory_room(request, places), price)


def unplanned_run(spec: FineTuneSpec) -> RunPlan:
    """Take a run as it is written, without a proof that it can be placed.

    Raises:
        SpecError: the request leaves open what only a plan decides; or the engine cannot train so.
    """
    request = as_written(spec.resources.worker, field="resources.worker")
    precision = plan_precision(spec.precision, request, [], is_here=False)
    check_engine(spec, precision)
    return RunPlan(None, request, precision)


def check_engine(spec: FineTuneSpec, precision: PlannedPrecision) -> None:
    """Refuse what can be placed but not trained.

    Raises:
        SpecError: a TPU, weights in bf16 where passes compute in another precision, or workers
            that cannot share the model as the spec says.
    """
    check_parallelism(spec)
    if spec.resources.worker.kind == "tpu":
        raise SpecError(
            "the engine does not train on TPUs",
            field="resources.worker.kind",
            got="tpu",
            allowed="cpu, gpu",
        )
    check_weights(spec.training.weights, precision.precision)
