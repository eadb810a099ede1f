"""Metrics of resampled answers: the same as scikit-learn's on the rows as they are."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score

from kovar.evaluation.paired import resample
from kovar.tuning.report.answers import read_answers

GENERATOR = np.random.default_rng(0)


def value_of(path, metric):
    sums, num_rows = read_answers(path, metric=metric)
    columns = sums.columns()
    assert len(columns) == num_rows
    return sums.value(columns.sum(axis=0, keepdims=True)).item()


def written(path, labels=None, **columns):
    table = pa.table(columns)
    if labels:
        table = table.replace_schema_metadata({"kovar.labels": json.dumps(labels)})
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize("num_labels", [2, 5])
def test_a_classifier_is_scored_as_by_scikit_learn(tmp_path, num_labels):
    true = GENERATOR.integers(0, num_labels, 300)
    predicted = np.where(GENERATOR.random(300) < 0.7, true, GENERATOR.integers(0, num_labels, 300))
    loss = GENERATOR.random(300)
    path = written(tmp_path / "a", true=true, predicted=predicted, loss=loss)
    assert value_of(path, "accuracy") == pytest.approx(accuracy_score(true, predicted))
    assert value_of(path, "macro_f1") == pytest.approx(f1_score(true, predicted, average="macro"))
    assert value_of(path, "loss") == pytest.approx(loss.mean())


def test_a_label_that_no_row_has_counts_with_an_f1_of_0(tmp_path):
    ones = np.ones(4, dtype=np.int32)
    path = written(tmp_path / "a", labels=["a", "b"], true=ones, predicted=ones)
    assert value_of(path, "macro_f1") == pytest.approx(0.5)


def test_rows_with_several_labels_are_scored_as_by_scikit_learn(tmp_path):
    true, predicted = GENERATOR.random((2, 200, 4)) < 0.4
    lists = [[np.flatnonzero(row).tolist() for row in one] for one in (true, predicted)]
    path = written(tmp_path / "a", labels=list("abcd"), true=lists[0], predicted=lists[1],
                   loss=np.full(200, 2.0))  # fmt: skip
    assert value_of(path, "accuracy") == pytest.approx((true == predicted).all(axis=1).mean())
    for kind in ("micro", "macro"):
        expected = f1_score(true, predicted, average=kind)
        assert value_of(path, f"{kind}_f1") == pytest.approx(expected)
    assert value_of(path, "loss") == pytest.approx(0.5)


def test_entities_and_words_are_counted(tmp_path):
    path = written(tmp_path / "a", num_right=[1, 2], num_predicted=[2, 2], num_true=[2, 4],
                   words_right=[3, 4], num_words=[5, 5], loss=[1.0, 4.0])  # fmt: skip
    found = {name: value_of(path, name) for name in ("precision", "recall", "f1", "accuracy")}
    assert found == pytest.approx({"precision": 3 / 4, "recall": 0.5, "f1": 0.6, "accuracy": 0.7})
    assert value_of(path, "loss") == pytest.approx(0.5)


def test_a_language_model_is_scored_per_token(tmp_path):
    path = written(tmp_path / "a", loss=[2.0, 6.0], num_tokens=[2, 2], num_right=[1, 2])
    assert value_of(path, "loss") == pytest.approx(2.0)
    assert value_of(path, "perplexity") == pytest.approx(np.exp(2.0))
    assert value_of(path, "token_accuracy") == pytest.approx(0.75)


def test_answers_that_cannot_tell_a_metric_are_no_answers(tmp_path):
    path = written(tmp_path / "a", true=[0, 1], predicted=[0, 1])
    assert read_answers(path, metric="loss") is None
    assert read_answers(path, metric="perplexity") is None
    assert read_answers(path, metric="made_up") is None
    assert read_answers(tmp_path / "absent", metric="accuracy") is None
    (tmp_path / "torn").write_bytes(path.read_bytes()[:-20])
    assert read_answers(tmp_path / "torn", metric="accuracy") is None


def test_resampled_metrics_are_paired_and_spread_as_theory_says(tmp_path):
    right = GENERATOR.random(1000) < 0.8
    path = written(tmp_path / "a", true=np.ones(1000, int), predicted=right.astype(int))
    sums, num_rows = read_answers(path, metric="accuracy")
    drawn = resample([sums, sums], num_rows=num_rows, num_draws=500)
    assert drawn.shape == (2, 500)
    assert (drawn[0] == drawn[1]).all()
    error = np.sqrt(right.mean() * (1 - right.mean()) / num_rows)
    assert drawn[0].mean() == pytest.approx(right.mean(), abs=3 * error / np.sqrt(500))
    assert drawn[0].std() == pytest.approx(error, rel=0.15)
