import numpy as np
import pytest

from kovar.evaluation import bootstrap, count_intervals, score_intervals, weighted_means
from kovar.evaluation.bootstrap import draw_weights
from kovar.evaluation.metrics import classification_metrics
from kovar.registry.interval import macro_f1_interval, wilson
from scored import answers


def test_every_draw_has_as_many_rows_as_the_data_set():
    drawn = list(draw_weights(50, num_draws=20, seed=0))
    assert len(drawn) == 20
    assert {weights.sum() for weights in drawn} == {50}


def test_the_interval_of_a_mean_is_that_of_the_central_limit_theorem():
    values = np.random.default_rng(0).normal(size=4000)
    low, high = bootstrap([weighted_means({"mean": values})], num_rows=4000)["mean"]
    half = 1.96 * values.std() / np.sqrt(4000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.005)


def test_equal_seeds_give_equal_intervals():
    true, scores = answers(60, 3)
    assert score_intervals(true, scores, num_draws=50) == score_intervals(
        true, scores, num_draws=50
    )


def test_a_metric_that_most_draws_leave_undefined_has_no_interval():
    rarely = iter([1.0, *[float("nan")] * 9])
    assert bootstrap([lambda _: {"x": next(rarely)}], num_rows=3, num_draws=10) == {}


def test_an_interval_holds_the_value_that_it_is_of():
    true, scores = answers(300, 3)
    metrics = classification_metrics(true, scores.argmax(1), labels="abc", scores=scores)
    found = metrics.to_json()
    intervals = score_intervals(true, scores, num_draws=200) | count_intervals(metrics)
    for name in ("loss", "brier", "roc_auc", "pr_auc", "accuracy", "macro_f1", "macro_recall"):
        low, high = intervals[name]
        assert low < found[name] < high


def test_intervals_of_counts_are_those_of_the_model_card():
    true, scores = answers(100, 2)
    metrics = classification_metrics(true, scores.argmax(1), labels="ab")
    intervals = count_intervals(metrics)
    assert intervals["accuracy"] == wilson(metrics.accuracy, 100)
    assert intervals["macro_f1"] == macro_f1_interval(metrics.confusion_matrix)
    assert intervals["per_class.a.f1"][0] < metrics.per_class["a"].f1
