"""Metrics of a classifier with one label per row, computed by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kovar.evaluation.calibration import (
    brier_scores,
    expected_calibration_error,
    losses,
    reliability,
)
from kovar.evaluation.ranking import is_rankable, pr_auc, roc_auc

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one label; `support` is its number of true rows.

    The areas need probabilities, and rows both with and without the label.
    """

    precision: float
    recall: float
    f1: float
    support: int
    roc_auc: float | None = None
    pr_auc: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is known, as plain JSON types."""
        return _known(asdict(self))


@dataclass(frozen=True)
class ScoreMetrics:
    """How good the probabilities are.

    Args:
        loss: mean cross-entropy in nats.
        ece: expected calibration error over 15 bins of equal width; see `calibration`.
        brier: mean Brier score over all labels, 0 (best) to 2.
        roc_auc: mean over labels of one-vs-rest ROC-AUC; None if no label can be ranked.
        pr_auc: mean over labels of one-vs-rest average precision; None if none can be ranked.
    """

    loss: float
    ece: float
    brier: float
    roc_auc: float | None
    pr_auc: float | None


@dataclass(frozen=True)
class ClassificationMetrics:
    """What a classifier got right.

    Averages over all rows (micro) of precision, recall and F1 equal the accuracy, because each row
    has one label and one prediction. `confusion_matrix[i][j]` counts rows of label i predicted as
    label j, in the order of `labels`.
    """

    accuracy: float
    macro_f1: float
    macro_precision: float
    macro_recall: float
    micro_precision: float
    micro_recall: float
    micro_f1: float
    num_rows: int
    labels: tuple[str, ...]
    per_class: dict[str, ClassMetrics]
    confusion_matrix: tuple[tuple[int, ...], ...]
    scores: ScoreMetrics | None = None
    """None where only the predicted labels are known."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as stored in a version's manifest."""
        found = asdict(self) | {
            "labels": list(self.labels),
            "confusion_matrix": [list(row) for row in self.confusion_matrix],
            "per_class": {label: one.to_json() for label, one in self.per_class.items()},
        }
        return _known(found | (found.pop("scores") or {}))


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def classification_metrics(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    *,
    labels: Sequence[str],
    scores: npt.NDArray[np.float64] | None = None,
) -> ClassificationMetrics:
    """Score predictions.

    Args:
        true: label index per row, shape [rows].
        predicted: predicted label index per row, shape [rows].
        labels: names in index order.
        scores: probabilities, shape [rows, labels]; None where only the labels are known.

    A label that is never predicted has precision 0, not an undefined one.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    indices = list(range(len(labels)))
    found = precision_recall_fscore_support(true, predicted, labels=indices, zero_division=0.0)
    num_labels = len(labels)
    confusion = np.bincount(true * num_labels + predicted, minlength=num_labels**2)
    per_class = {
        label: ClassMetrics(
            float(p), float(r), float(f), int(n), *_areas(true == index, scores, index)
        )
        for index, label, p, r, f, n in zip(indices, labels, *found, strict=True)
    }
    accuracy = float((true == predicted).mean())
    return ClassificationMetrics(
        accuracy=accuracy,
        macro_f1=_mean([one.f1 for one in per_class.values()]),
        macro_precision=_mean([one.precision for one in per_class.values()]),
        macro_recall=_mean([one.recall for one in per_class.values()]),
        micro_precision=accuracy,
        micro_recall=accuracy,
        micro_f1=accuracy,
        num_rows=len(true),
        labels=tuple(labels),
        per_class=per_class,
        confusion_matrix=tuple(map(tuple, confusion.reshape(num_labels, num_labels).tolist())),
        scores=None if scores is None else _score_metrics(true, predicted, scores, per_class),
    )


def _areas(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64] | None, index: int
) -> tuple[float | None, float | None]:
    if scores is None or not is_rankable(positive):
        return None, None
    return roc_auc(positive, scores[:, index]), pr_auc(positive, scores[:, index])


def _score_metrics(
    true: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    per_class: dict[str, ClassMetrics],
) -> ScoreMetrics:
    roc_areas = [one.roc_auc for one in per_class.values() if one.roc_auc is not None]
    pr_areas = [one.pr_auc for one in per_class.values() if one.pr_auc is not None]
    bins = reliability(scores.max(axis=1), predicted == true)
    return ScoreMetrics(
        loss=float(losses(true, scores).mean()),
        ece=expected_calibration_error(bins),
        brier=float(brier_scores(true, scores).mean()),
        roc_auc=_mean(roc_areas) if roc_areas else None,
        pr_auc=_mean(pr_areas) if pr_areas else None,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
