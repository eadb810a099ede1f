"""What one rank computes on. On a simulated node its CPU stands in for the chip it was given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from kovar.precision import Device, Precision, ResolvedPrecision, resolve
from kovar.settings import is_simulated
from kovar.training.recovery import WITH_BF16_WEIGHTS, check_weights

if TYPE_CHECKING:
    import torch

    from kovar.resources import Request
    from kovar.training.halves import Weights


def rank_device(given: Callable[[], torch.device]) -> torch.device:
    """Return this rank's device.

    Args:
        given: finds the device that Ray has assigned; not asked on a simulated node.
    """
    import torch

    return torch.device("cpu") if is_simulated() else given()


def rank_precision(wanted: Precision, chip: Device, request: Request) -> ResolvedPrecision:
    """Resolve the precision on this rank's chip.

    A rehearsal must not fail because a CPU lacks what the requested chip has, so a stand-in takes
    what suits it, and its reason says so wherever the precision is told.

    Raises:
        SpecError: the chip cannot do it.
    """
    if not _stands_in(request):
        return resolve(wanted, chip)
    own = resolve("auto", chip)
    return replace(
        own, reason=f"SIMULATED: this CPU stands in for the requested {request.kind}; {own.reason}"
    )


def rank_weights(wanted: Weights, precision: ResolvedPrecision, request: Request) -> Weights:
    """Return the format that this rank keeps weights in; a stand-in takes what suits it.

    Raises:
        SpecError: bf16 weights without bf16 passes.
    """
    if _stands_in(request) and precision.precision not in WITH_BF16_WEIGHTS:
        return "fp32"
    check_weights(wanted, precision.precision)
    return wanted


def _stands_in(request: Request) -> bool:
    """Return whether this CPU takes the place of a requested accelerator."""
    return is_simulated() and request.kind != "cpu"
