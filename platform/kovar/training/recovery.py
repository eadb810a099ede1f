"""What follows when the numbers of a run are no longer finite.

A broken batch is skipped in the step itself (skips.py). What is left is the fault of the precision
or of the run: it goes back to the last good checkpoint and goes on in the next safer precision.
In fp32 there is none: the same steps would give the same numbers, so the run fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kovar.errors import NonFiniteError, SpecError
from kovar.precision import Device, Precision, ResolvedPrecision, resolve, supported_precisions
from kovar.training.adjustments import Adjustments, Change

if TYPE_CHECKING:
    from kovar.training.checkpoint import CheckpointFolder
    from kovar.training.engine import Report
    from kovar.training.folder import RunFolder
    from kovar.training.halves import Weights
    from kovar.training.parallel import Parallel

_SAFER: Final[dict[Precision, tuple[Precision, ...]]] = {
    "fp8": ("bf16", "fp32"),
    "fp16": ("bf16", "fp32"),
    "bf16": ("fp32",),
    "tf32": ("fp32",),
}
"""What to try next, in this order, as far as the chip has it: a wider range, then all bits."""

WITH_BF16_WEIGHTS: Final = ("bf16", "fp8")


@dataclass(frozen=True)
class Numbers:
    """How a run computes: the precision of its passes, and the format its weights are kept in."""

    precision: ResolvedPrecision
    weights: Weights

    def __str__(self) -> str:
        kept = " with weights in bf16" if self.weights == "bf16" else ""
        return f"{self.precision.precision}{kept}"


def check_weights(weights: Weights, precision: Precision) -> None:
    """Refuse weights in another format than the passes compute in.

    Raises:
        SpecError: bf16 weights without bf16 passes.
    """
    if weights == "bf16" and precision not in (*WITH_BF16_WEIGHTS, "auto"):
        raise SpecError(
            f"weights are kept in bf16 only where passes compute in it, and here they do in "
            f"{precision}",
            field="training.weights",
            got="bf16",
            allowed="fp32",
            hint="set precision: bf16",
        )


def safer(numbers: Numbers, chip: Device) -> Numbers | None:
    """Return the next safer way to compute; None when there is none on the chip."""
    if numbers.weights == "bf16":
        return replace(numbers, weights="fp32")
    for precision in _SAFER.get(numbers.precision.precision, ()):
        if precision in supported_precisions(chip):
            return replace(numbers, precision=resolve(precision, chip))
    return None


class Recovery:
    """Where a run stands between its tries; every rank has one, and all decide the same.

    Args:
        paths: where adjustments are remembered.
        checkpoints: of the run.
        parallel: the ranks.
        chip: what this rank computes on.
        begun_with: how the spec computes.
        guard: raises where a later attempt took this one's place, so that it writes no more.
    """

    def __init__(
        self,
        paths: RunFolder,
        checkpoints: CheckpointFolder,
        parallel: Parallel,
        *,
        chip: Device,
        begun_with: Numbers,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self._paths = paths
        self._checkpoints = checkpoints
        self._parallel = parallel
        self._chip = chip
        self._begun_with = begun_with
        self._guard = guard
        self.adjustments = self._remembered()

    @property
    def numbers(self) -> Numbers:
        """How the run computes from here on."""
        if not self.adjustments.changes:
            return self._begun_with
        last = self.adjustments.changes[-1]
        resolved = resolve(last.precision, self._chip)
        told = replace(resolved, reason=f"{resolved.precision}: {last.reason}")
        return Numbers(told, last.weights)

    def remember(self, adjustments: Adjustments, writes: bool) -> None:
        """Take what an engine adjusted; written, it survives this process."""
        self.adjustments = adjustments
        if writes:
            self._write()

    def after(self, error: NonFiniteError, report: Report) -> None:
        """Decide how to go on; every rank must call it, after the same step.

        Raises:
            NonFiniteError: the run computes in the safest precision already.
        """
        before, step = self.numbers, int(error.context["step"])
        following = safer(before, self._chip)
        if following is None:
            raise error
        newest = self._checkpoints.newest() if self._parallel.is_main else None
        to_step = self._parallel.from_main(newest.step if newest else 0)
        reason = f"in {before} the numbers of step {step} were not finite"
        change = Change(to_step, following.precision.precision, following.weights, reason)
        self.adjustments = self.adjustments.with_change(change)
        if not self._parallel.is_main:
            return
        self._write()
        report(
            "rolled_back",
            step=step,
            to_step=to_step,
            was=str(before),
            precision=str(following),
            reason=error.message,
        )

    def _write(self) -> None:
        self._guard()
        self.adjustments.write(self._paths.adjustments)

    def _remembered(self) -> Adjustments:
        """Return rank 0's adjustments, as far as they hold where the run goes on."""
        found = Adjustments()
        if self._parallel.is_main:
            found = self._read()
        return Adjustments.of(
            json.loads(self._parallel.text_from_main(json.dumps(found.to_json())))
        )

    def _read(self) -> Adjustments:
        if self._paths.adjustments.exists():
            found = Adjustments.read(self._paths.adjustments)
            if not found.changes:
                return found
            newest = self._checkpoints.newest()
            return found.resumed_at(newest.step if newest else 0)
        newest = self._checkpoints.newest()
        if newest is None:
            return Adjustments()
        state = json.loads((newest.folder / "state.json").read_text(encoding="utf-8"))
        return Adjustments.of(state["adjustments"])
