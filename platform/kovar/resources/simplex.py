"""A small linear program whose columns are found while it is solved.

The revised simplex method with an explicit inverse of the basis, for a few dozen rows. It computes
in floating point, so its answer is a guide and never a proof.
Source: V. Chvátal, Linear Programming (1983), chapters 7 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

_TINY: Final = 1e-9

KeyT = TypeVar("KeyT")


class Simplex(Generic[KeyT]):
    """Minimize the sum of the first slack variables; all slack variables begin as the basis.

    Args:
        right: the right-hand sides, none negative.
        num_weighted: how many slack variables are summed.
    """

    def __init__(self, right: Sequence[float], num_weighted: int) -> None:
        size = len(right)
        self._keys: list[KeyT | None] = [None] * size
        self._weights = [1.0] * num_weighted + [0.0] * (size - num_weighted)
        self._values = [float(value) for value in right]
        self._inverse = [[float(row == column) for column in range(size)] for row in range(size)]

    def value(self) -> float:
        """Return what is minimized."""
        pairs = zip(self._weights, self._values, strict=True)
        return sum(weight * value for weight, value in pairs)

    def duals(self) -> list[float]:
        """Return what one more of each right-hand side would add to the value."""
        duals = [0.0] * len(self._values)
        for weight, row in zip(self._weights, self._inverse, strict=True):
            if weight:
                duals = [dual + weight * entry for dual, entry in zip(duals, row, strict=True)]
        return duals

    def enter(self, key: KeyT | None, column: Sequence[tuple[int, float]]) -> bool:
        """Bring a column without weight into the basis, for the variable that bounds it first.

        Args:
            key: what the column is called in `solution`; None for a slack.
            column: its entries as (row, value).

        Returns:
            False when nothing bounds it.
        """
        direction = [sum(row[at] * value for at, value in column) for row in self._inverse]
        bounds = [
            (max(0.0, value) / step, -step, place)
            for place, (value, step) in enumerate(zip(self._values, direction, strict=True))
            if step > _TINY
        ]
        if not bounds:
            return False
        _, _, leaving = min(bounds)
        pivot = direction[leaving]
        row = [entry / pivot for entry in self._inverse[leaving]]
        amount = self._values[leaving] / pivot
        for place, step in enumerate(direction):
            if place != leaving and step:
                self._inverse[place] = [
                    entry - step * other
                    for entry, other in zip(self._inverse[place], row, strict=True)
                ]
                self._values[place] -= step * amount
        self._inverse[leaving], self._values[leaving] = row, amount
        self._keys[leaving], self._weights[leaving] = key, 0.0
        return True

    def solution(self) -> dict[KeyT, float]:
        """Return the columns with a key that are in the basis, with their amounts."""
        return {
            key: value
            for key, value in zip(self._keys, self._values, strict=True)
            if key is not None and value > _TINY
        }
