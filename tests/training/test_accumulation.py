"""Micro-batches and ranks change how a batch is computed, never what it teaches."""

from __future__ import annotations

import numpy as np
import pytest

from kovar.training import TrainingSettings
from kovar.training.method import Full, Lora
from ranks import Case, train, train_on_ranks

# Plain descent: what scales a gradient wrongly would be divided out by an adaptive optimizer.
SETTINGS = {
    "epochs": 1,
    "max_tokens": 256,
    "learning_rate": 0.1,
    "warmup": 0.0,
    "optimizer": "sgd",
    "max_gradient_norm": 1e9,
}


@pytest.fixture(scope="module")
def case(tiny_inputs):
    base, dataset = tiny_inputs

    def build(*, weighed=False, method=None, **changes):
        settings = TrainingSettings(**(SETTINGS | changes))
        return Case(base.folder, dataset.folder, settings, weighed, method or Full())

    return build


def distance(one, other):
    return max(np.abs(one[name] - other[name]).max() for name in one)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("tokens", [1, 64, 100])
def test_micro_batches_add_up_to_the_large_batch(case, tokens, weighed):
    whole = train(case(weighed=weighed))
    cut = train(case(weighed=weighed, micro_batch_tokens=tokens))
    assert distance(whole, cut) < 1e-6


@pytest.mark.parametrize("options", [{}, {"weighed": True}, {"method": Lora()}], ids=str)
def test_micro_batches_on_two_ranks_add_up_to_the_large_batch_on_one(case, tmp_path, options):
    whole = train(case(**options))
    cut = train_on_ranks(case(**options, micro_batch_tokens=64), world_size=2, folder=tmp_path)
    assert distance(whole, cut) < 1e-6


def test_a_mean_of_means_would_be_noticed(case):
    assert distance(train(case()), train(case(weighed=True))) > 1e-4
