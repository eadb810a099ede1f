"""Where the trials of a sweep may run, and how many of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kovar.tuning.points import TrialSpec


@dataclass(frozen=True)
class Room:
    """How many trials may run at once.

    Args:
        total: of all kinds; None for no limit.
        by_group: of each hardware; a group that is not listed has no limit of its own.
    """

    total: int | None = None
    by_group: Mapping[str, int] | None = None

    def admits(self, group: str, running: Counter[str]) -> bool:
        """Say whether one more trial of a group fits beside those that run."""
        if self.total is not None and running.total() >= self.total:
            return False
        limit = (self.by_group or {}).get(group)
        return limit is None or running[group] < limit


@dataclass(frozen=True)
class Venue:
    """Where trials may run: what the conductor asks of the sweep's plan.

    Args:
        room: how many at once.
        group: the hardware of a trial.
        refusal: why a trial cannot run where it would be placed; None if it can.
        price: per hour of what a trial holds on a type of node, or where it is most expensive.
    """

    room: Room
    group: Callable[[TrialSpec], str]
    refusal: Callable[[TrialSpec], str | None]
    price: Callable[[TrialSpec, str | None], float | None]
    _groups: dict[int, str] = field(default_factory=dict)
    _prices: dict[tuple[int, str | None], float | None] = field(default_factory=dict)

    def group_of(self, trial: TrialSpec) -> str:
        """Return the hardware of a trial; the plan is asked once."""
        if trial.number not in self._groups:
            self._groups[trial.number] = self.group(trial)
        return self._groups[trial.number]

    def price_of(self, trial: TrialSpec, node_type: str | None) -> float | None:
        """Return the price per hour of what a trial holds; the plan is asked once."""
        key = trial.number, node_type
        if key not in self._prices:
            self._prices[key] = self.price(trial, node_type)
        return self._prices[key]
