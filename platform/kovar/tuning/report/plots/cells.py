"""Values of a field put into few cells: each value its own, or ranges of many numbers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from kovar.tuning.report.dimension import Dimension, shown

MAX_VALUES: Final = 12
"""More distinct numbers than this are put into ranges."""

NUM_RANGES: Final = 8


@dataclass(frozen=True)
class Cells:
    """The cells of one field.

    Args:
        labels: of the cells, in order.
        places: cell of each value of the dimension.
    """

    labels: tuple[str, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, dimension: Dimension) -> Cells:
        """Put each configuration's value into a cell."""
        if dimension.is_numeric and dimension.num_distinct > MAX_VALUES:
            return cls._of_ranges(dimension)
        labels = dimension.categories
        index = {label: place for place, label in enumerate(labels)}
        return cls(tuple(labels), tuple(index[text] for text in dimension.texts))

    @classmethod
    def _of_ranges(cls, dimension: Dimension) -> Cells:
        numbers = dimension.numbers
        low, high = min(numbers), max(numbers)
        width = (high - low) / NUM_RANGES
        edges = [low + width * number for number in range(NUM_RANGES + 1)]
        ends = [shown(10**edge if dimension.is_log else edge) for edge in edges]
        labels = tuple(f"{a} – {b}" for a, b in pairwise(ends))
        places = (min(int((one - low) / width), NUM_RANGES - 1) for one in numbers)
        return cls(labels, tuple(places))
