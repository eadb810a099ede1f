"""What a run will do, decided before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kovar.errors import SpecError
from kovar.precision import declared_device, resolve
from kovar.resources import Cluster, Demand, NodeType, Placement, local_cluster, plan_placement

if TYPE_CHECKING:
    from kovar.precision import Precision
    from kovar.resources import Request
    from kovar.training.spec import FineTuneSpec


@dataclass(frozen=True)
class PlannedPrecision:
    """A precision as far as it is known before a worker has its chip."""

    precision: Precision
    reason: str
    device: str
    """Name of the chip."""


@dataclass(frozen=True)
class RunPlan:
    """Where a run would execute and at which precision."""

    placement: Placement
    precision: PlannedPrecision

    @property
    def device(self) -> str:
        """Name of the chip."""
        return self.precision.device

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as written to the run's `plan.json`."""
        return {
            "placement": self.placement.to_json(),
            "precision": self.precision.precision,
            "reason": self.precision.reason,
            "device": self.device,
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
    placement = plan_placement([demand], cluster)
    used = placement.assignments[spec.name]
    planned = plan_precision(
        spec.precision,
        placement.requests[spec.name],
        [kind for kind in cluster.node_types if kind.name in used],
    )
    check_engine(spec, planned)
    return RunPlan(placement, planned)


def check_engine(spec: FineTuneSpec, precision: PlannedPrecision) -> None:
    """Refuse what can be placed but not trained.

    Raises:
        SpecError: a TPU, or fp8.
    """
    if spec.resources.worker.kind == "tpu":
        raise SpecError(
            "the engine does not train on TPUs",
            field="resources.worker.kind",
            got="tpu",
            allowed="cpu, gpu",
        )
    if precision.precision == "fp8":
        raise SpecError(
            "the engine does not train in fp8",
            field="precision",
            got="fp8",
            allowed="bf16, fp16, tf32, fp32, auto",
            hint="use bf16 on this chip",
        )


def plan_precision(
    precision: Precision, request: Request, node_types: Sequence[NodeType]
) -> PlannedPrecision:
    """Resolve a precision on the chip that a worker gets, as far as it is declared.

    Args:
        precision: what the spec says.
        request: what one worker gets, with the type that was chosen.
        node_types: where it was placed.

    Raises:
        SpecError: the chip cannot compute in it.
    """
    named: tuple[str, ...] = getattr(request, "type", ())
    types = named or tuple(gpu for kind in node_types for gpu in kind.gpu_types)
    device = declared_device(request.kind, types[0] if types else None)
    if device is None:
        return PlannedPrecision(
            precision, f"{precision}: resolved on the GPU that the worker gets", "GPU"
        )
    resolved = resolve(precision, device)
    return PlannedPrecision(resolved.precision, resolved.reason, device.name)
