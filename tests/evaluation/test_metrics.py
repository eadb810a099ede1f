"""Metrics of a classifier, against values worked out by hand."""

import json

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from kovar.evaluation import classification_metrics
from scored import answers

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


def test_averages_and_areas_are_those_of_scikit_learn():
    true, scores = answers(150, 3)
    predicted = scores.argmax(axis=1)
    found = classification_metrics(true, predicted, labels="abc", scores=scores).to_json()
    for average in ("micro", "macro"):
        expected = precision_recall_fscore_support(true, predicted, average=average)
        names = [f"{average}_{name}" for name in ("precision", "recall", "f1")]
        assert [found[name] for name in names] == pytest.approx(expected[:3])
    one_vs_rest = np.arange(3) == true[:, None]
    assert found["roc_auc"] == pytest.approx(roc_auc_score(one_vs_rest, scores, average="macro"))
    assert found["pr_auc"] == pytest.approx(average_precision_score(one_vs_rest, scores))
    assert found["per_class"]["a"]["roc_auc"] == pytest.approx(
        roc_auc_score(true == 0, scores[:, 0])
    )


def test_without_probabilities_nothing_is_said_of_them():
    found = classification_metrics(TRUE, PREDICTED, labels=("a", "b", "c")).to_json()
    assert not {"loss", "ece", "brier", "roc_auc", "scores"} & set(found)
    assert set(found["per_class"]["a"]) == {"precision", "recall", "f1", "support"}
