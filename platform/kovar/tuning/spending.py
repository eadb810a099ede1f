"""What a sweep may spend, and what it has spent: pure functions of its state and of a clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kovar.tuning.state import SweepState, TrialState

_HOUR_S: Final = 3600.0

Price = Callable[["TrialState"], float | None]
"""Tells the price per hour of what a trial holds; None where none is declared."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a sweep has used so far.

    Args:
        seconds: of wall-clock time, over all drivers that worked on it.
        cost: of what its trials held; None where no trial has a price.
    """

    seconds: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a sweep may use.

    Args:
        hours: of wall-clock time; None for no limit.
        cost: in the currency of the cluster's file; None for no limit.
    """

    hours: float | None = None
    cost: float | None = None

    def exceeded(self, spent: Spent) -> str | None:
        """Say which limit is reached; None while there is none."""
        if self.hours is not None and spent.seconds >= self.hours * _HOUR_S:
            return f"the budget of {self.hours:g} hours is used up"
        if self.cost is not None and spent.cost is not None and spent.cost >= self.cost:
            return f"the budget of {self.cost:g} is used up: the trials cost {spent.cost:.4g}"
        return None


def spending(state: SweepState, price: Price, now: float) -> Spent:
    """Add up the time of the drivers and the price of what the trials held.

    Args:
        state: of the sweep.
        price: of each trial's hardware.
        now: UNIX time.
    """
    costs = [
        per_hour * trial.seconds(now) / _HOUR_S
        for trial in state.trials.values()
        if (per_hour := price(trial)) is not None
    ]
    seconds = state.wall_seconds
    if state.sessions and state.closed is None:
        seconds += max(0.0, now - state.sessions[-1][1])
    return Spent(seconds, sum(costs) if costs else None)


def price_over_stays(
    trial: TrialState, price: Callable[[str | None], float | None], now: float
) -> float | None:
    """Return the price per hour of a trial over all of its stays, each by its own node type.

    Args:
        trial: started or not.
        price: per hour of what it holds, on a type of node or where it is most expensive.
        now: UNIX time, for the stay that goes on.

    Returns:
        None where one of them has no price.
    """
    prices = [price(stay.node_type) for stay in trial.stays] or [price(None)]
    known = [one for one in prices if one is not None]
    if len(known) < len(prices):
        return None
    seconds = [(stay.ended_at or now) - stay.started_at for stay in trial.stays]
    if len(set(known)) == 1 or not sum(seconds):
        return known[-1]
    return sum(each * held for each, held in zip(known, seconds, strict=True)) / sum(seconds)
