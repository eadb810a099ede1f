"""All that is said of a version's answers to one data set: metrics, intervals, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kovar.evaluation.calibration import ReliabilityBin, reliability
from kovar.evaluation.entities import EntityMetrics, entity_intervals, entity_metrics
from kovar.evaluation.intervals import count_intervals, score_intervals
from kovar.evaluation.metrics import ClassificationMetrics, classification_metrics
from kovar.evaluation.multilabel import (
    THRESHOLD,
    MultilabelMetrics,
    multilabel_intervals,
    multilabel_metrics,
)
from kovar.evaluation.slices import Slice, label_slices, slice_metrics, tag_slices

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.registry.interval import Interval


@dataclass(frozen=True)
class Assessment:
    """How good a version is on one data set.

    Args:
        metrics: of all rows.
        intervals: flat name of a metric (`accuracy`, `per_class.good.f1`) → 95 % interval.
        reliability: rows by confidence.
        slices: of some rows.
    """

    metrics: ClassificationMetrics | MultilabelMetrics | EntityMetrics
    intervals: Mapping[str, Interval]
    reliability: tuple[ReliabilityBin, ...]
    slices: tuple[Slice, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "metrics": self.metrics.to_json(),
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "reliability": [asdict(each) for each in self.reliability],
            "slices": [each.to_json() for each in self.slices],
        }


def assess(
    true: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    *,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Assessment:
    """Judge the answers of a classifier with one label per row.

    Args:
        true: label index per row, shape [rows].
        scores: probabilities, shape [rows, labels].
        labels: names in index order.
        groups: what divides the rows into slices → name of each row's slice.
    """
    predicted = scores.argmax(axis=1)
    metrics = classification_metrics(true, predicted, labels=labels, scores=scores)
    return Assessment(
        metrics=metrics,
        intervals=count_intervals(metrics) | score_intervals(true, scores),
        reliability=reliability(scores.max(axis=1), predicted == true),
        slices=slice_metrics(true, predicted, groups or {}),
    )


def assess_labels(
    true: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    *,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Assessment:
    """Judge the answers of a classifier whose rows have any number of labels.

    Reliability is that of all pairs of row and label.

    Args:
        true: whether a row has a label, shape [rows, labels].
        scores: probabilities, shape [rows, labels].
        labels: names in index order.
        groups: what divides the rows into slices → name of each row's slice.
    """
    import numpy as np

    predicted = scores >= THRESHOLD
    confidence = np.where(predicted, scores, 1 - scores)
    return Assessment(
        metrics=multilabel_metrics(true, scores, labels=labels),
        intervals=multilabel_intervals(true, scores),
        reliability=reliability(confidence.ravel(), (predicted == true).ravel()),
        slices=label_slices(true, scores, groups or {}),
    )


def assess_tags(
    true: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Assessment:
    """Judge the answers of a tagger.

    Args:
        true: tags per sentence.
        predicted: tags per sentence, as many as in `true`.
        groups: what divides the sentences into slices → name of each sentence's slice.
    """
    return Assessment(
        metrics=entity_metrics(true, predicted),
        intervals=entity_intervals(true, predicted),
        reliability=(),
        slices=tag_slices(true, predicted, groups or {}),
    )
