"""Shares of GPUs on cards: how few cards hold them, when no share is split over two.

This is bin packing. First fit decreasing and the sum decide nearly all cases; a search decides
the rest, as far as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

UNITS: Final = 10_000
"""Ray counts resources in ten-thousandths; whole numbers keep the sums exact."""

Shares = tuple[tuple[int, int], ...]
"""(ten-thousandths of a card, how many of them), in ascending order of size."""


_MOST_STEPS: Final = 5_000
"""Steps of the search for one answer: a few milliseconds, and few answers need so many."""


class Cards(NamedTuple):
    """How many cards hold some shares.

    Args:
        at_least: no fewer hold them.
        enough: so many hold them; the same as `at_least` unless the search ended early.
        steps: the work of the search. It is the same for equal shares, whatever was asked before.
    """

    at_least: int
    enough: int
    steps: int


def num_cards(shares: Shares) -> int:
    """Return how many cards hold the shares; the fewest, unless the search for them ended early."""
    return count_cards(shares).enough


@lru_cache(maxsize=8192)
def count_cards(shares: Shares) -> Cards:
    """Return the fewest cards that hold the shares, or the two numbers that they lie between."""
    shares = tuple((size, count) for size, count in shares if count)
    if not shares:
        return Cards(0, 0, 0)
    if len(shares) == 1:
        size, count = shares[0]
        exact = -(-count // (UNITS // size))
        return Cards(exact, exact, 0)
    enough = _first_fit(shares)
    too_few = max(
        -(-sum(size * count for size, count in shares) // UNITS),
        sum(count for size, count in shares if 2 * size > UNITS),
    )
    search = _Search()
    try:
        while too_few < enough and not search.fit(shares, too_few):
            too_few += 1
    except _EndedEarlyError:
        return Cards(too_few, enough, search.steps)
    return Cards(too_few, too_few, search.steps)


def _first_fit(shares: Shares) -> int:
    """Count the cards that first fit decreasing opens."""
    cards: list[list[int]] = []  # [room on each, how many such cards]
    for size, count in reversed(shares):
        left = count
        for card in list(cards):
            each = card[0] // size
            if not each or not left:
                continue
            full = min(card[1], left // each)
            rest = left - full * each if full < card[1] else 0
            card[1] -= full + (1 if rest else 0)
            cards += [[card[0] - each * size, full]] if full else []
            cards += [[card[0] - rest * size, 1]] if rest else []
            left -= full * each + rest
        each = UNITS // size
        cards += [[UNITS - each * size, left // each]] if left >= each else []
        cards += [[UNITS - left % each * size, 1]] if left % each else []
    return sum(number for _, number in cards)


class _EndedEarlyError(Exception):
    """The search has taken all its steps."""


class _Search:
    """Fill card after card; the memory of what failed is that of one answer alone."""

    def __init__(self) -> None:
        self.steps = 0
        self._known: dict[tuple[Shares, int], bool] = {}

    def fit(self, shares: Shares, cards: int) -> bool:
        """Whether the shares fit on so many cards.

        Raises:
            _EndedEarlyError: it takes too many steps to tell.
        """
        key = shares, cards
        if key not in self._known:
            self._known[key] = self._fit(shares, cards)
        return self._known[key]

    def _fit(self, shares: Shares, cards: int) -> bool:
        if sum(size * count for size, count in shares) > cards * UNITS:
            return False
        if len(shares) <= 1:
            return not shares or shares[0][1] <= cards * (UNITS // shares[0][0])
        # The card that holds one of the largest shares may as well be filled next, and be full.
        largest, count = shares[-1]
        rest = (*shares[:-1], (largest, count - 1))
        return any(
            self.fit(tuple((size, left) for size, left in after if left), cards - 1)
            for after in self._after_filling_a_card(rest, UNITS - largest)
        )

    def _after_filling_a_card(self, shares: Shares, room: int) -> Iterator[Shares]:
        """Yield what is left after each way to fill a card so that no further share fits on it."""
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise _EndedEarlyError
        if not shares:
            yield ()
            return
        size, count = shares[-1]
        for taken in range(min(count, room // size), -1, -1):
            left = room - taken * size
            for rest in self._after_filling_a_card(shares[:-1], left):
                still = left - sum(
                    share * (before - after)
                    for (share, before), (_, after) in zip(shares[:-1], rest, strict=True)
                )
                if taken == count or size > still:
                    yield (*rest, (size, count - taken))
