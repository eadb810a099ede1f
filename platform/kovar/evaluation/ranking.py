"""How well scores rank the rows of a label above the others: ROC-AUC and PR-AUC, one-vs-rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.evaluation.bootstrap import Statistic

NUM_LEVELS: Final = 16_384
"""Different scores that a resampled area distinguishes. More of them share levels of equally many
rows: the area moves by far less than its interval is wide."""


def is_rankable(positive: npt.NDArray[np.bool_]) -> bool:
    """Return whether there are rows to rank against each other: some with the label, some not."""
    return bool(positive.any()) and not bool(positive.all())


def roc_auc(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """Return the area under the receiver operating characteristic of one label.

    It is the chance that a row with the label scores above one without it; ties count half.

    Args:
        positive: whether a row has the label, shape [rows]; see `is_rankable`.
        scores: shape [rows].
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores))


def pr_auc(positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """Return the area under the precision-recall curve of one label, as average precision.

    The sum over thresholds of precision × gain in recall, without interpolation, which would be
    too optimistic (Davis and Goadrich 2006).

    Args:
        positive: whether a row has the label, shape [rows]; see `is_rankable`.
        scores: shape [rows].
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positive, scores))


class Ranking:
    """The rows of one label by their scores, sorted once for all draws.

    Args:
        positive: whether a row has the label, shape [rows].
        scores: shape [rows].
    """

    def __init__(self, positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> None:
        import numpy as np

        distinct, levels = np.unique(-scores, return_inverse=True)
        self._num_levels = min(len(distinct), NUM_LEVELS)
        if len(distinct) > NUM_LEVELS:
            rank = np.empty(len(scores), dtype=np.int64)
            rank[np.argsort(levels, kind="stable")] = np.arange(len(scores))
            # Equal scores stay together: each takes the level of the first of them.
            first = np.full(len(distinct), len(scores), dtype=np.int64)
            np.minimum.at(first, levels, rank)
            levels = first[levels] * NUM_LEVELS // len(scores)
        self._cells = levels * 2 + positive

    def areas(self, weights: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Return ROC-AUC and PR-AUC of weighted rows; NaN without weight on one of the sides."""
        import numpy as np

        counts = np.bincount(self._cells, weights=weights, minlength=2 * self._num_levels)
        misses, hits = counts[0::2], counts[1::2]
        above, false = np.cumsum(hits), np.cumsum(misses)
        positives, negatives = above[-1], false[-1]
        if not (positives and negatives):
            return float("nan"), float("nan")
        roc = misses @ (above - hits / 2) / (positives * negatives)
        pr = hits @ (above / np.maximum(above + false, 1)) / positives
        return float(roc), float(pr)


def ranking_areas(true: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> Statistic | None:
    """Return the statistic of `roc_auc` and `pr_auc`, means over the labels; None without any.

    A draw in which a label cannot be ranked leaves it out of the mean.

    Args:
        true: whether a row has a label, shape [rows, labels].
        scores: shape [rows, labels].
    """
    import numpy as np

    rankings = [
        Ranking(true[:, index], scores[:, index])
        for index in range(true.shape[1])
        if is_rankable(true[:, index])
    ]
    if not rankings:
        return None

    def areas(weights: npt.NDArray[np.float64]) -> Mapping[str, float]:
        table = np.array([ranking.areas(weights) for ranking in rankings])
        table = table[np.isfinite(table).all(axis=1)]
        roc, pr = table.mean(axis=0).tolist() if len(table) else (float("nan"),) * 2
        return {"roc_auc": roc, "pr_auc": pr}

    return areas
