"""What follows when the numbers of a run are no longer finite: decided here, done by the worker.

A broken batch is skipped in the step itself (skips.py). What is left is the fault of the precision
or of the run: it goes back to the last good checkpoint and goes on in the next safer precision.
In fp32 there is none: the same steps would give the same numbers, so the run fails.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from kovar.precision import Device, Precision, ResolvedPrecision, resolve, supported_precisions
from kovar.training.adjustments import Change
from kovar.training.halves import Weights

_SAFER: Final[dict[Precision, tuple[Precision, ...]]] = {
    "fp8": ("bf16", "fp32"),
    "fp16": ("bf16", "fp32"),
    "bf16": ("fp32",),
    "tf32": ("fp32",),
}
"""What to try next, in this order, as far as the chip has it: a wider range, then all bits."""


@dataclass(frozen=True)
class Numbers:
    """How a run computes: the precision of its passes, and the format its weights are kept in."""

    precision: ResolvedPrecision
    weights: Weights

    def __str__(self) -> str:
        kept = " with weights in bf16" if self.weights == "bf16" else ""
        return f"{self.precision.precision}{kept}"


def safer(numbers: Numbers, chip: Device) -> Numbers | None:
    """Return the next safer way to compute; None when there is none on the chip."""
    if numbers.weights == "bf16":
        return replace(numbers, weights="fp32")
    for precision in _SAFER.get(numbers.precision.precision, ()):
        if precision in supported_precisions(chip):
            return replace(numbers, precision=resolve(precision, chip))
    return None


def applied(numbers: Numbers, change: Change | None, chip: Device) -> Numbers:
    """Return the numbers of a run after a change; the same without one."""
    if change is None:
        return numbers
    resolved = resolve(change.precision, chip)
    told = replace(resolved, reason=f"{resolved.precision}: {change.reason}")
    return Numbers(told, "bf16" if change.weights == "bf16" else "fp32")
