"""The Pareto front: what no other configuration beats in both quality and price."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that none dominates, the cheapest first.

    One point dominates another when it is no worse in both and better in one. Of equal points the
    first is kept.

    Args:
        points: price (less is better) and quality (more is better).
    """
    chosen: list[int] = []
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    for index in order:
        if not chosen or points[index][1] > points[chosen[-1]][1]:
            chosen.append(index)
    return chosen
