"""Metrics, their confidence intervals, and the evaluation of a version."""

from kovar.evaluation.assessment import Assessment, assess, assess_labels, assess_tags
from kovar.evaluation.bootstrap import Statistic, bootstrap, weighted_means
from kovar.evaluation.calibration import (
    ReliabilityBin,
    brier_scores,
    expected_calibration_error,
    losses,
    reliability,
)
from kovar.evaluation.entities import (
    Entity,
    EntityMetrics,
    entities_of,
    entity_intervals,
    entity_metrics,
)
from kovar.evaluation.evaluate import Evaluation, evaluate, score_texts, tag_texts
from kovar.evaluation.intervals import count_intervals, score_intervals
from kovar.evaluation.metrics import (
    ClassificationMetrics,
    ClassMetrics,
    ScoreMetrics,
    classification_metrics,
)
from kovar.evaluation.multilabel import (
    THRESHOLD,
    MultilabelMetrics,
    multilabel_intervals,
    multilabel_metrics,
)
from kovar.evaluation.perplexity import (
    LanguageMetrics,
    language_intervals,
    language_metrics,
    perplexity,
)
from kovar.evaluation.slices import Slice, column_slices, length_slices, slice_metrics

__all__ = [
    "THRESHOLD",
    "Assessment",
    "ClassMetrics",
    "ClassificationMetrics",
    "Entity",
    "EntityMetrics",
    "Evaluation",
    "LanguageMetrics",
    "MultilabelMetrics",
    "ReliabilityBin",
    "ScoreMetrics",
    "Slice",
    "Statistic",
    "assess",
    "assess_labels",
    "assess_tags",
    "bootstrap",
    "brier_scores",
    "classification_metrics",
    "column_slices",
    "count_intervals",
    "entities_of",
    "entity_intervals",
    "entity_metrics",
    "evaluate",
    "expected_calibration_error",
    "language_intervals",
    "language_metrics",
    "length_slices",
    "losses",
    "multilabel_intervals",
    "multilabel_metrics",
    "perplexity",
    "reliability",
    "score_intervals",
    "score_texts",
    "slice_metrics",
    "tag_texts",
    "weighted_means",
]
