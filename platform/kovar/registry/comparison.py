"""Is one version better than another on the same rows, or is it luck?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The accuracy of a candidate less that of an incumbent, on the same rows."""

    candidate: float
    incumbent: float
    difference: float
    lower: float
    """One-sided lower confidence bound of the difference."""
    num_rows: int


def compare_pairs(
    candidate: npt.NDArray[np.bool_],
    incumbent: npt.NDArray[np.bool_],
    *,
    confidence: float,
    num_resamples: int,
    seed: int,
) -> Comparison:
    """Compare by the paired bootstrap (Efron and Tibshirani 1993; Koehn 2004).

    A row counts +1, 0 or -1, so that resampling rows with replacement is a draw of three counts
    from a multinomial distribution: the same result without touching every row.

    Args:
        candidate: whether it is right, shape [rows].
        incumbent: whether it is right on the same rows, shape [rows].
        confidence: of the lower bound, between 0 and 1.
        num_resamples: number of resampled data sets.
        seed: of the resampling.
    """
    import numpy as np

    difference = candidate.astype(np.int8) - incumbent.astype(np.int8)
    num_rows = len(difference)
    counts = np.array([(difference == value).sum() for value in (-1, 0, 1)])
    draws = np.random.default_rng(seed).multinomial(num_rows, counts / num_rows, size=num_resamples)
    means = (draws[:, 2] - draws[:, 0]) / num_rows
    return Comparison(
        candidate=float(candidate.mean()),
        incumbent=float(incumbent.mean()),
        difference=float(difference.mean()),
        lower=float(np.quantile(means, 1 - confidence)),
        num_rows=num_rows,
    )
