"""What a configuration is paid for with: money, time or energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kovar.tuning.report.configuration import Configuration, Spread

PriceName = Literal["cost", "time", "energy"]


@dataclass(frozen=True)
class Price:
    """One way to say what a configuration takes; less is better.

    Args:
        name: as results name it.
        title: with the unit.
        objective: what a spec's objectives call it; None for what they cannot name.
        of: configuration → what one trial of it took; None where it is not known.
        cheapest: what the one that takes least of it is called.
    """

    name: PriceName
    title: str
    objective: str | None
    of: Callable[[Configuration], Spread | None]
    cheapest: str


PRICES: Final = (
    Price("cost", "cost of a trial", "cost", lambda one: one.cost, "cheapest"),
    Price("time", "time of a trial (s)", "wall_seconds", lambda one: one.wall_seconds, "fastest"),
    Price("energy", "energy of a trial (J)", None, lambda one: one.energy_joules, "most frugal"),
)


def known_prices(
    configurations: Sequence[Configuration], *, objectives: Sequence[str] = ()
) -> list[Price]:
    """Return the prices that are known of all configurations, the one that decides first.

    The one that the sweep's objectives name decides; else money where every node type has a price,
    else time.
    """
    known = [
        price
        for price in PRICES
        if configurations
        and all((spread := price.of(one)) is not None and spread.mean > 0 for one in configurations)
    ]
    return sorted(known, key=lambda price: price.objective not in objectives)
