"""Metrics of a classifier, against values worked out by hand."""

import json

import numpy as np
import pytest

from kovar.evaluation import classification_metrics

TRUE = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 1])


def test_accuracy_f1_and_confusion_matrix():
    metrics = classification_metrics(TRUE, PREDICTED, labels=("a", "b", "c"))
    assert metrics.accuracy == pytest.approx(3 / 6)
    assert metrics.confusion_matrix == ((2, 1, 0), (1, 1, 0), (0, 1, 0))
    assert metrics.per_class["a"].f1 == pytest.approx(2 / 3)
    assert metrics.per_class["b"].precision == pytest.approx(1 / 3)
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)


def test_a_label_that_is_never_predicted_has_precision_zero():
    metrics = classification_metrics(TRUE, PREDICTED, labels=("a", "b", "c"))
    assert metrics.per_class["c"].precision == 0.0
    assert metrics.per_class["c"].support == 1


def test_metrics_have_a_json_form():
    metrics = classification_metrics(TRUE, PREDICTED, labels=("a", "b", "c"))
    assert json.loads(json.dumps(metrics.to_json()))["confusion_matrix"][0] == [2, 1, 0]
