"""What a run will do, decided before anything is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kovar.errors import SpecError
from kovar.precision import ResolvedPrecision, declared_device, detect_device, resolve
from kovar.resources import Demand, NodeType, Placement, local_node_types, plan_placement

if TYPE_CHECKING:
    from kovar.precision import Precision
    from kovar.resources import Request
    from kovar.training.spec import FineTuneSpec


@dataclass(frozen=True)
class RunPlan:
    """Where a run would execute and at which precision."""

    placement: Placement
    precision: ResolvedPrecision
    device: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as written to the run's `plan.json`."""
        return {
            "placement": asdict(self.placement),
            "precision": self.precision.precision,
            "reason": self.precision.reason,
            "device": self.device,
        }


def plan_run(spec: FineTuneSpec, node_types: Sequence[NodeType] | None = None) -> RunPlan:
    """Prove that a run can be placed, and resolve its precision.

    Args:
        spec: the run.
        node_types: the declared cluster; this machine when absent.

    Raises:
        PlacementError: no node type can hold a worker, or there are too few nodes.
        SpecError: the chip cannot compute in the precision asked for.
    """
    demand = Demand.of(spec.resources, name=spec.name)
    placement = plan_placement([demand], local_node_types() if node_types is None else node_types)
    precision, device = resolve_for(spec.precision, spec.resources.worker)
    check_engine(spec, precision)
    return RunPlan(placement, precision, device)


def check_engine(spec: FineTuneSpec, precision: ResolvedPrecision) -> None:
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


def resolve_for(precision: Precision, request: Request) -> tuple[ResolvedPrecision, str]:
    """Resolve a precision on the chip that a request names.

    A request that leaves its GPU open, or names an unknown one, is resolved as for this machine's.

    Returns:
        The precision, and the name of the chip.
    """
    kind = getattr(request, "type", None)
    device = declared_device(request.kind, kind) or detect_device("cuda")
    return resolve(precision, device), device.name
