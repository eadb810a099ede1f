"""Does a probability of 0.8 come true in 80 % of the rows? ECE, reliability, Brier score, loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.evaluation.bootstrap import Statistic

NUM_BINS: Final = 15
"""As in Guo et al., "On Calibration of Modern Neural Networks" (2017)."""

SMALLEST_PROBABILITY: Final = 1e-12
"""A loss is taken of no less, so that one impossible row does not make it infinite."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose confidence lies in (low, high]; the first bin holds 0 as well.

    Args:
        low: lower edge.
        high: upper edge.
        num_rows: rows in it.
        confidence: their mean confidence; 0 without rows.
        accuracy: share of them that is right; 0 without rows.
    """

    low: float
    high: float
    num_rows: int
    confidence: float
    accuracy: float


def reliability(
    confidence: npt.NDArray[np.float64],
    correct: npt.NDArray[np.bool_],
    *,
    num_bins: int = NUM_BINS,
) -> tuple[ReliabilityBin, ...]:
    """Sort rows into bins of equal width by their confidence.

    Args:
        confidence: probability of the predicted label, shape [rows].
        correct: whether the predicted label is the true one, shape [rows].
        num_bins: number of bins between 0 and 1.
    """
    import numpy as np

    bins = _bin_of(confidence, num_bins)
    counts = np.bincount(bins, minlength=num_bins)
    confidences = np.bincount(bins, weights=confidence, minlength=num_bins)
    hits = np.bincount(bins, weights=correct, minlength=num_bins)
    divisor = np.maximum(counts, 1)
    return tuple(
        ReliabilityBin(
            low=index / num_bins,
            high=(index + 1) / num_bins,
            num_rows=int(counts[index]),
            confidence=float(confidences[index] / divisor[index]),
            accuracy=float(hits[index] / divisor[index]),
        )
        for index in range(num_bins)
    )


def _bin_of(confidence: npt.NDArray[np.float64], num_bins: int) -> npt.NDArray[np.int64]:
    import numpy as np

    bins = np.ceil(confidence * num_bins).astype(np.int64) - 1
    found: npt.NDArray[np.int64] = np.clip(bins, 0, num_bins - 1)
    return found


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the mean over rows of |accuracy − confidence| of their bin (Naeini et al. 2015)."""
    num_rows = sum(each.num_rows for each in bins)
    gaps = (each.num_rows * abs(each.accuracy - each.confidence) for each in bins)
    return sum(gaps) / num_rows


def calibration_error(
    confidence: npt.NDArray[np.float64],
    correct: npt.NDArray[np.bool_],
    *,
    num_bins: int = NUM_BINS,
) -> Statistic:
    """Return the expected calibration error, `ece`, as a statistic of resampled rows.

    Args:
        confidence: probability of the predicted label, shape [rows].
        correct: whether the predicted label is the true one, shape [rows].
        num_bins: number of bins between 0 and 1.
    """
    import numpy as np

    bins = _bin_of(confidence, num_bins)
    gap = correct - confidence

    def error(weights: npt.NDArray[np.float64]) -> Mapping[str, float]:
        gaps = np.bincount(bins, weights=weights * gap, minlength=num_bins)
        return {"ece": float(np.abs(gaps).sum() / weights.sum())}

    return error


def brier_scores(
    true: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the Brier score of each row: Σ over labels of (probability − truth)², 0 to 2.

    Brier, "Verification of forecasts expressed in terms of probability" (1950).

    Args:
        true: label index per row, shape [rows].
        scores: probabilities, shape [rows, labels].
    """
    import numpy as np

    truth = np.zeros_like(scores)
    truth[np.arange(len(true)), true] = 1.0
    found: npt.NDArray[np.float64] = np.square(scores - truth).sum(axis=1)
    return found


def losses(true: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the cross-entropy of each row in nats.

    Args:
        true: label index per row, shape [rows].
        scores: probabilities, shape [rows, labels].
    """
    import numpy as np

    chosen = scores[np.arange(len(true)), true]
    found: npt.NDArray[np.float64] = -np.log(np.maximum(chosen, SMALLEST_PROBABILITY))
    return found
