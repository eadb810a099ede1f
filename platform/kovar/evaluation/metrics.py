"""Metrics of a classifier, computed by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one label; `support` is its number of true rows."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ClassificationMetrics:
    """What a classifier got right.

    `confusion_matrix[i][j]` counts rows of label i predicted as label j, in the order of `labels`.
    """

    accuracy: float
    macro_f1: float
    num_rows: int
    labels: tuple[str, ...]
    per_class: dict[str, ClassMetrics]
    confusion_matrix: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as stored in a version's manifest."""
        return asdict(self) | {
            "labels": list(self.labels),
            "confusion_matrix": [list(row) for row in self.confusion_matrix],
        }


def classification_metrics(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], *, labels: Sequence[str]
) -> ClassificationMetrics:
    """Score predictions.

    Args:
        true: label index per row, shape [rows].
        predicted: predicted label index per row, shape [rows].
        labels: names in index order.

    A label that is never predicted has precision 0, not an undefined one.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    indices = list(range(len(labels)))
    scores = precision_recall_fscore_support(true, predicted, labels=indices, zero_division=0.0)
    confusion = confusion_matrix(true, predicted, labels=indices)
    per_class = {
        label: ClassMetrics(float(p), float(r), float(f), int(n))
        for label, p, r, f, n in zip(labels, *scores, strict=True)
    }
    return ClassificationMetrics(
        accuracy=float((true == predicted).mean()),
        macro_f1=sum(entry.f1 for entry in per_class.values()) / len(labels),
        num_rows=len(true),
        labels=tuple(labels),
        per_class=per_class,
        confusion_matrix=tuple(tuple(int(count) for count in row) for row in confusion),
    )
