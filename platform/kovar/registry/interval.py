"""Confidence intervals of metrics, computed from the counts that a manifest holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL: Final = 0.95
NUM_RESAMPLES: Final = 2000
_Z: Final = 1.959963984540054
"""Quantile of the normal distribution for 95 %, two-sided."""

Interval = tuple[float, float]


def wilson(share: float, num_rows: int) -> Interval:
    """Return the 95 % interval of a share of independent rows.

    Wilson's score interval: Wilson, "Probable inference" (1927); good for few rows and for shares
    near 0 or 1, unlike the normal approximation.
    """
    scaled = _Z * _Z / num_rows
    middle = (share + scaled / 2) / (1 + scaled)
    half = _Z * math.sqrt(share * (1 - share) / num_rows + scaled / (4 * num_rows))
    half /= 1 + scaled
    return max(0.0, middle - half), min(1.0, middle + half)


def macro_f1_interval(confusion_matrix: Sequence[Sequence[int]], *, seed: int = 0) -> Interval:
    """Return the 95 % interval of macro-F1, by bootstrap over the rows.

    Rows that agree in true and predicted label are interchangeable, so drawing new counts for the
    cells of the confusion matrix is the bootstrap over the rows themselves. The seed is fixed:
    equal matrices give equal intervals.

    Args:
        confusion_matrix: rows (true) of columns (predicted).
        seed: of the draws.
    """
    import numpy as np

    drawn = resampled(confusion_matrix, seed=seed)
    right = np.diagonal(drawn, axis1=1, axis2=2)
    all_named = drawn.sum(axis=1) + drawn.sum(axis=2)
    # A label that no row has and none was given counts as 0, as in the metric itself.
    f1 = 2 * right / np.maximum(all_named, 1)
    low, high = np.quantile(f1.mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def resampled(confusion_matrix: Sequence[Sequence[int]], *, seed: int = 0) -> NDArray[np.int64]:
    """Draw the confusion matrices of `NUM_RESAMPLES` data sets whose rows are drawn anew.

    Args:
        confusion_matrix: rows (true) of columns (predicted).
        seed: of the draws.

    Returns:
        Shape [resamples, labels, labels].
    """
    import numpy as np

    counts = np.asarray(confusion_matrix, dtype=np.int64)
    num_rows, num_labels = int(counts.sum()), len(counts)
    drawn = np.random.default_rng(seed).multinomial(
        num_rows, counts.ravel() / num_rows, size=NUM_RESAMPLES
    )
    return drawn.reshape(NUM_RESAMPLES, num_labels, num_labels)
