"""Batches whose gradients are not finite: skipped where the batch is at fault, and only so often.

A skipped step changes no weight, so that one broken row does no harm. Many of them, or several in
a row, are not the fault of batches: then the precision, or the run, is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_IN_A_ROW: Final = 3
MAX_SHARE: Final = 0.01
"""Of all steps of the run."""


class Skips:
    """Counts skipped steps; every rank counts the same, since gradients are those of all ranks.

    Args:
        num_steps: of the run.
        scaled: whether a loss scaler skips steps on purpose, to find its scale: those are not
            counted, the scale tells when they are too many.

    Attributes:
        steps: all that were skipped, in their order.
        in_a_row: skipped steps since the last one that changed weights.
    """

    def __init__(self, num_steps: int, *, scaled: bool) -> None:
        self.steps: list[int] = []
        self.in_a_row = 0
        self.allowed = max(MAX_IN_A_ROW, int(MAX_SHARE * num_steps))
        self._scaled = scaled

    def hear(self, taken: Sequence[tuple[int, bool]]) -> tuple[int, ...]:
        """Take steps in their order, each with whether it changed weights; return the skipped.

        `in_a_row` is afterwards the longest row that reaches into these steps or beyond the bound.
        """
        if self._scaled:
            return ()
        skipped = tuple(step for step, changed in taken if not changed)
        self.steps += skipped
        for _, changed in taken:
            if self.in_a_row > MAX_IN_A_ROW:
                break
            self.in_a_row = 0 if changed else self.in_a_row + 1
        return skipped

    @property
    def excess(self) -> str | None:
        """Say how the bound was passed; None while it is kept."""
        if self.in_a_row > MAX_IN_A_ROW:
            return f"more than {MAX_IN_A_ROW} steps in a row"
        if len(self.steps) > self.allowed:
            return f"{len(self.steps)} steps, where {self.allowed} are allowed"
        return None

    def state(self) -> dict[str, Any]:
        """Return everything to go on from, as JSON types."""
        return {"steps": list(self.steps), "in_a_row": self.in_a_row}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.steps, self.in_a_row = list(state["steps"]), state["in_a_row"]
