import math

import numpy as np
import pytest

from kovar.evaluation import language_intervals, language_metrics, perplexity


def test_a_model_that_chooses_among_eight_equally_likely_tokens_has_perplexity_eight():
    found = language_metrics(np.array([3, 5]) * math.log(8), np.array([3, 5]))
    assert found.perplexity == pytest.approx(8)
    assert found.bits_per_token == pytest.approx(3)
    assert (found.num_tokens, found.num_rows) == (8, 2)


def test_a_long_text_weighs_more_than_a_short_one():
    found = language_metrics(np.array([1.0, 0.0]), np.array([1, 9]))
    assert found.loss == pytest.approx(0.1)


def test_the_interval_of_perplexity_is_that_of_the_loss():
    sums = np.random.default_rng(0).gamma(5, size=200)
    found = language_intervals(sums, np.full(200, 3))
    assert found["perplexity"] == tuple(math.exp(bound) for bound in found["loss"])
    low, high = found["loss"]
    assert low < sums.sum() / 600 < high


def test_a_hopeless_loss_is_infinite_perplexity():
    assert perplexity(1e4) == math.inf


def test_no_token_is_an_error():
    with pytest.raises(ValueError, match="no token"):
        language_metrics(np.array([0.0]), np.array([0]))
