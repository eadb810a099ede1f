"""Metrics of a classifier whose rows have any number of labels, computed by scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from kovar.evaluation.bootstrap import NUM_DRAWS, Statistic, bootstrap, weighted_means
from kovar.evaluation.calibration import expected_calibration_error, reliability
from kovar.evaluation.metrics import ClassMetrics
from kovar.evaluation.ranking import is_rankable, pr_auc, ranking_areas, roc_auc

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.registry.interval import Interval

THRESHOLD: Final = 0.5
"""A label is predicted from this probability on."""


@dataclass(frozen=True)
class MultilabelMetrics:
    """What a multi-label classifier got right.

    Args:
        accuracy: share of rows whose labels are all right (subset accuracy).
        micro_precision: over all pairs of row and label, as are the other micro averages.
        micro_recall: see `micro_precision`.
        micro_f1: see `micro_precision`.
        macro_precision: mean over labels, as are the other macro averages.
        macro_recall: see `macro_precision`.
        macro_f1: see `macro_precision`.
        samples_f1: mean over rows of the F1 of the row's labels; 1 where none are right and none
            are predicted.
        hamming_loss: share of pairs of row and label that are wrong.
        ece: expected calibration error of all pairs, over 15 bins of equal width.
        brier: mean of (probability − truth)² over all pairs.
        roc_auc: mean over labels; None if no label can be ranked.
        pr_auc: mean over labels of average precision; None if no label can be ranked.
        num_rows: number of rows.
        labels: names in the order of the scores.
        per_class: by label.
    """

    accuracy: float
    micro_precision: float
    micro_recall: float
    micro_f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    samples_f1: float
    hamming_loss: float
    ece: float
    brier: float
    roc_auc: float | None
    pr_auc: float | None
    num_rows: int
    labels: tuple[str, ...]
    per_class: dict[str, ClassMetrics]

    def to_json(self) -> dict[str, Any]:
        """Return what is known as plain JSON types, as stored in a version's manifest."""
        found = asdict(self) | {
            "labels": list(self.labels),
            "per_class": {label: one.to_json() for label, one in self.per_class.items()},
        }
        return {name: value for name, value in found.items() if value is not None}


def multilabel_metrics(
    true: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    *,
    labels: Sequence[str],
    threshold: float = THRESHOLD,
) -> MultilabelMetrics:
    """Score predictions.

    Args:
        true: whether a row has a label, shape [rows, labels].
        scores: probabilities of the labels, each for itself, shape [rows, labels].
        labels: names in index order.
        threshold: probability from which a label is predicted.

    A label that is never predicted has precision 0, not an undefined one.
    """
    import numpy as np
    from sklearn.metrics import f1_score

    predicted = scores >= threshold
    per_class = {
        label: _of_label(true[:, index], predicted[:, index], scores[:, index])
        for index, label in enumerate(labels)
    }
    micro = _of_label(true.ravel(), predicted.ravel(), scores.ravel())
    each = list(per_class.values())
    roc_areas = [one.roc_auc for one in each if one.roc_auc is not None]
    pr_areas = [one.pr_auc for one in each if one.pr_auc is not None]
    truth = np.where(predicted, scores, 1 - scores), (predicted == true)
    return MultilabelMetrics(
        accuracy=float((predicted == true).all(axis=1).mean()),
        micro_precision=micro.precision,
        micro_recall=micro.recall,
        micro_f1=micro.f1,
        macro_precision=_mean([one.precision for one in each]),
        macro_recall=_mean([one.recall for one in each]),
        macro_f1=_mean([one.f1 for one in each]),
        samples_f1=float(f1_score(true, predicted, average="samples", zero_division=1.0)),
        hamming_loss=float((predicted != true).mean()),
        ece=expected_calibration_error(reliability(truth[0].ravel(), truth[1].ravel())),
        brier=float(np.square(scores - true).mean()),
        roc_auc=_mean(roc_areas) if roc_areas else None,
        pr_auc=_mean(pr_areas) if pr_areas else None,
        num_rows=len(true),
        labels=tuple(labels),
        per_class=per_class,
    )


def _of_label(
    true: npt.NDArray[np.bool_],
    predicted: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
) -> ClassMetrics:
    right, named, there = (true & predicted).sum(), predicted.sum(), true.sum()
    rankable = is_rankable(true)
    return ClassMetrics(
        precision=float(right / named) if named else 0.0,
        recall=float(right / there) if there else 0.0,
        f1=float(2 * right / (named + there)) if named + there else 0.0,
        support=int(there),
        roc_auc=roc_auc(true, scores) if rankable else None,
        pr_auc=pr_auc(true, scores) if rankable else None,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def multilabel_intervals(
    true: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    *,
    threshold: float = THRESHOLD,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the 95 % intervals of the metrics, by bootstrap over the rows.

    Args:
        true: whether a row has a label, shape [rows, labels].
        scores: probabilities of the labels, shape [rows, labels].
        threshold: probability from which a label is predicted.
        num_draws: resampled data sets.
        seed: of the draws.
    """
    import numpy as np

    predicted = scores >= threshold
    wrong = predicted != true
    areas = ranking_areas(true, scores)
    means = weighted_means(
        {
            "accuracy": (~wrong).all(axis=1).astype(np.float64),
            "hamming_loss": wrong.mean(axis=1),
            "brier": np.square(scores - true).mean(axis=1),
        }
    )
    statistics = [means, _f1(true, predicted), *([areas] if areas else [])]
    return bootstrap(statistics, num_rows=len(true), num_draws=num_draws, seed=seed)


def _f1(true: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> Statistic:
    import numpy as np

    right = (true & predicted).T.astype(np.float64)
    named = (true.astype(np.float64) + predicted).T

    def averages(weights: npt.NDArray[np.float64]) -> Mapping[str, float]:
        hits, mentions = right @ weights, named @ weights
        micro = 2 * hits.sum() / max(mentions.sum(), 1.0)
        macro = (2 * hits / np.maximum(mentions, 1.0)).mean()
        return {"micro_f1": float(micro), "macro_f1": float(macro)}

    return averages
