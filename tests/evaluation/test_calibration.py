import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from kovar.evaluation import brier_scores, expected_calibration_error, losses, reliability
from kovar.evaluation.calibration import calibration_error
from scored import answers


def test_the_error_of_two_bins_is_the_one_computed_by_hand():
    confidence = np.array([0.55, 0.65, 0.95, 0.85])
    correct = np.array([True, False, True, True])
    bins = reliability(confidence, correct, num_bins=2)
    assert [one.num_rows for one in bins] == [0, 4]
    assert expected_calibration_error(bins) == pytest.approx(abs(0.75 - 0.75))
    bins = reliability(confidence, correct, num_bins=5)  # (0.4, 0.6], (0.6, 0.8], (0.8, 1]
    by_hand = (1 * abs(1 - 0.55) + 1 * abs(0 - 0.65) + 2 * abs(1 - 0.9)) / 4
    assert expected_calibration_error(bins) == pytest.approx(by_hand)


def test_an_edge_belongs_to_the_bin_below_it_and_zero_to_the_first():
    bins = reliability(np.array([0.0, 0.5, 1.0]), np.array([True] * 3), num_bins=2)
    assert [one.num_rows for one in bins] == [2, 1]


def test_a_model_that_is_as_right_as_it_says_has_no_error():
    confidence = np.repeat([0.25, 0.75], 400)
    correct = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 != 0])
    assert expected_calibration_error(reliability(confidence, correct)) == pytest.approx(0)


def test_brier_score_and_loss_are_those_of_scikit_learn():
    true, scores = answers(200, 2)
    scores /= scores.sum(axis=1, keepdims=True)
    assert losses(true, scores).mean() == pytest.approx(log_loss(true, scores))
    half = brier_score_loss(true, scores[:, 1])  # of one of two labels
    assert brier_scores(true, scores).mean() == pytest.approx(2 * half)


def test_an_impossible_row_has_a_large_but_finite_loss():
    assert np.isfinite(losses(np.array([1]), np.array([[1.0, 0.0]]))).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(1, 4)), min_size=1))
def test_a_row_of_weight_three_counts_as_three_rows(rows):
    confidence, correct, weights = (np.array(column) for column in zip(*rows, strict=True))
    repeated = reliability(np.repeat(confidence, weights), np.repeat(correct, weights))
    found = calibration_error(confidence, correct)(weights.astype(float))["ece"]
    assert found == pytest.approx(expected_calibration_error(repeated), abs=1e-12)
