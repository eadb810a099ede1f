"""Shares of GPUs on cards: how few cards hold them, when no share is split over two.

This is bin packing. First fit decreasing and the sum decide nearly all cases; a search decides
the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

UNITS: Final = 10_000
"""Ray counts resources in ten-thousandths; whole numbers keep the sums exact."""

Shares = tuple[tuple[int, int], ...]
"""(ten-thousandths of a card, how many of them), in ascending order of size."""


@lru_cache(maxsize=8192)
def num_cards(shares: Shares) -> int:
    """Return the fewest cards that hold the shares."""
    shares = tuple((size, count) for size, count in shares if count)
    if not shares:
        return 0
    if len(shares) == 1:
        size, count = shares[0]
        return -(-count // (UNITS // size))
    enough = _first_fit(shares)
    too_few = max(
        -(-sum(size * count for size, count in shares) // UNITS),
        sum(count for size, count in shares if 2 * size > UNITS),
    )
    while too_few < enough and not _fit(shares, too_few):
        too_few += 1
    return too_few


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


@lru_cache(maxsize=8192)
def _fit(shares: Shares, cards: int) -> bool:
    """Whether the shares fit on so many cards."""
    if sum(size * count for size, count in shares) > cards * UNITS:
        return False
    if len(shares) <= 1:
        return not shares or shares[0][1] <= cards * (UNITS // shares[0][0])
    # The card that holds one of the largest shares may as well be filled next, and be full.
    largest, count = shares[-1]
    rest = (*shares[:-1], (largest, count - 1))
    return any(
        _fit(tuple((size, left) for size, left in after if left), cards - 1)
        for after in _after_filling_a_card(rest, UNITS - largest)
    )


def _after_filling_a_card(shares: Shares, room: int) -> Iterator[Shares]:
    """Yield what is left after each way to fill a card so that no further share fits on it."""
    if not shares:
        yield ()
        return
    size, count = shares[-1]
    for taken in range(min(count, room // size), -1, -1):
        left = room - taken * size
        for rest in _after_filling_a_card(shares[:-1], left):
            still = left - sum(
                share * (before - after)
                for (share, before), (_, after) in zip(shares[:-1], rest, strict=True)
            )
            if taken == count or size > still:
                yield (*rest, (size, count - taken))
