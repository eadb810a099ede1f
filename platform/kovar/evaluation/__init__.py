"""Metrics and the evaluation of a version."""

from kovar.evaluation.evaluate import Evaluation, evaluate
from kovar.evaluation.metrics import ClassificationMetrics, ClassMetrics, classification_metrics

__all__ = [
    "ClassMetrics",
    "ClassificationMetrics",
    "Evaluation",
    "classification_metrics",
    "evaluate",
]
