import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from kovar.evaluation import multilabel_intervals, multilabel_metrics

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.random((80, 3)) < 0.4
SCORES = np.clip(0.25 + 0.4 * TRUE + RANDOM.normal(scale=0.25, size=TRUE.shape), 0, 1)
PREDICTED = SCORES >= 0.5
FOUND = multilabel_metrics(TRUE, SCORES, labels=("a", "b", "c"))


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_averages_are_those_of_scikit_learn(average):
    expected = sklearn_metrics.precision_recall_fscore_support(TRUE, PREDICTED, average=average)
    names = [f"{average}_{name}" for name in ("precision", "recall", "f1")]
    assert [getattr(FOUND, name) for name in names] == pytest.approx(expected[:3])
    assert FOUND.samples_f1 == pytest.approx(
        sklearn_metrics.f1_score(TRUE, PREDICTED, average="samples", zero_division=1.0)
    )


def test_the_rest_is_that_of_scikit_learn():
    assert FOUND.accuracy == pytest.approx(sklearn_metrics.accuracy_score(TRUE, PREDICTED))
    assert FOUND.hamming_loss == pytest.approx(sklearn_metrics.hamming_loss(TRUE, PREDICTED))
    assert FOUND.roc_auc == pytest.approx(sklearn_metrics.roc_auc_score(TRUE, SCORES))
    assert FOUND.pr_auc == pytest.approx(sklearn_metrics.average_precision_score(TRUE, SCORES))
    each = [sklearn_metrics.brier_score_loss(TRUE[:, i], SCORES[:, i]) for i in range(3)]
    assert FOUND.brier == pytest.approx(np.mean(each))


def test_intervals_hold_their_values():
    intervals = multilabel_intervals(TRUE, SCORES, num_draws=200)
    for name, (low, high) in intervals.items():
        assert low < getattr(FOUND, name) < high
    assert {"micro_f1", "macro_f1", "accuracy", "roc_auc", "pr_auc"} <= set(intervals)


def test_a_label_without_a_row_leaves_the_areas_to_the_others():
    found = multilabel_metrics(np.array([[1, 0], [0, 0]], bool), SCORES[:2, :2], labels="ab")
    assert found.per_class["b"].roc_auc is None
    assert "roc_auc" not in found.to_json()["per_class"]["b"]
    assert found.roc_auc == found.per_class["a"].roc_auc
