import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from kovar.evaluation.ranking import NUM_LEVELS, Ranking, is_rankable, ranking_areas
from scored import answers

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=2)


@settings(deadline=None)
@given(ROWS)
def test_weighted_areas_with_ties_are_those_of_scikit_learn(rows):
    positive, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    drawn = weights > 0
    assume(is_rankable(positive[drawn]))
    roc, pr = Ranking(positive, scores / 6).areas(weights.astype(float))
    expected = {"sample_weight": weights[drawn]}
    assert roc == pytest.approx(roc_auc_score(positive[drawn], scores[drawn], **expected))
    assert pr == pytest.approx(average_precision_score(positive[drawn], scores[drawn], **expected))


def test_areas_of_a_label_without_weight_on_one_side_are_undefined():
    ranking = Ranking(np.array([True, False]), np.array([0.9, 0.1]))
    assert np.isnan(ranking.areas(np.array([2.0, 0.0]))).all()


def test_sharing_levels_hardly_moves_an_area():
    true, scores = answers(4 * NUM_LEVELS, 2, digits=15)
    roc, pr = Ranking(true == 1, scores[:, 1]).areas(np.ones(len(true)))
    assert roc == pytest.approx(roc_auc_score(true == 1, scores[:, 1]), abs=1e-5)
    assert pr == pytest.approx(average_precision_score(true == 1, scores[:, 1]), abs=1e-4)


def test_the_mean_over_labels_leaves_out_one_that_cannot_be_ranked():
    true = np.array([0, 0, 1, 1])
    scores = np.array([[0.8, 0.2, 0.0], [0.4, 0.6, 0.0], [0.5, 0.5, 0.0], [0.1, 0.9, 0.0]])
    areas = ranking_areas(np.arange(3) == true[:, None], scores)
    expected = [roc_auc_score(true == label, scores[:, label]) for label in (0, 1)]
    assert areas(np.ones(4))["roc_auc"] == pytest.approx(np.mean(expected))


def test_one_label_alone_has_no_areas():
    assert ranking_areas(np.ones((3, 1), dtype=bool), np.ones((3, 1))) is None
