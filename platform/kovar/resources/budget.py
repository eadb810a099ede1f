"""The work that one plan may take: counted in steps, so that every machine decides alike."""

from __future__ import annotations

from typing import Final

from kovar.errors import UndecidedError

STEPS: Final = 1_500_000
"""Steps of one plan with its refusal; a step is a few operations on one number, about 0.6 µs."""


class Budget:
    """What is left of the work that one plan may take.

    Args:
        steps: how much that is.
    """

    def __init__(self, steps: int = STEPS) -> None:
        self.left = steps

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.left <= 0

    def spend(self, steps: int) -> None:
        """Count some work that was done or is about to be."""
        self.left -= steps

    def check(self) -> None:
        """Go on only while something is left.

        Raises:
            UndecidedError: nothing is.
        """
        if self.is_spent:
            raise undecided()


def undecided() -> UndecidedError:
    """Return the error that says so, and claims neither that there is a place nor that not."""
    return UndecidedError(
        "no arrangement was found within the planner's bound, and none was ruled out",
        hint="simplify: fewer unlike requests, or rounder amounts; "
        "or start with --no-plan (plan: false), and Ray places what it can",
    )
