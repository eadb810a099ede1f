"""The plan of steps: batches and learning rates, known before the first step."""

import numpy as np
import pytest

from kovar.training import TrainingSettings
from kovar.training.schedule import learning_rate, plan_steps

LENGTHS = np.array([5, 9, 12, 30, 31, 32, 7, 18, 4, 22], dtype=np.int32)


def rates(num_steps=100, **fields):
    settings = TrainingSettings(learning_rate=1.0, **fields)
    return [learning_rate(step, num_steps, settings) for step in range(1, num_steps + 1)]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_warm_up_rises_to_the_peak_and_nothing_exceeds_it(schedule):
    found = rates(schedule=schedule, warmup=0.1)
    assert found[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert max(found) == found[9] == 1.0
    assert min(found) > 0


def test_linear_decay_falls_in_equal_steps():
    found = rates(schedule="linear", warmup=0.0)
    assert np.diff(found) == pytest.approx(np.full(99, -0.01))


def test_cosine_decay_is_half_way_down_in_the_middle():
    assert rates(schedule="cosine", warmup=0.0)[50] == pytest.approx(0.5)


def test_a_constant_rate_stays():
    assert set(rates(schedule="constant", warmup=0.0)) == {1.0}


def plan(**fields):
    settings = TrainingSettings(max_tokens=64, **fields)
    return plan_steps(LENGTHS, fingerprint="f", max_length=32, settings=settings)


def test_every_epoch_holds_every_row_once_in_another_order():
    steps = plan(epochs=2)
    epochs = [
        np.concatenate([s.batch.rows for s in steps if s.epoch == epoch]).tolist()
        for epoch in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(len(LENGTHS)))
    assert epochs[0] != epochs[1]
    assert sum(step.ends_epoch for step in steps) == 2


def test_max_steps_cuts_the_plan_and_the_decay_fits_the_cut():
    steps = plan(epochs=50, max_steps=7, schedule="linear", warmup=0.0, learning_rate=0.7)
    assert [step.step for step in steps] == list(range(1, 8))
    assert steps[-1].learning_rate == pytest.approx(0.1)


def test_a_plan_from_some_step_on_is_the_end_of_the_whole_plan():
    steps = plan(epochs=3)
    rest = steps[len(steps) // 2 :]
    assert len(steps) == len(list(steps))
    expected = [(step.step, step.epoch, step.batch.rows.tolist()) for step in steps]
    assert [(s.step, s.epoch, s.batch.rows.tolist()) for s in rest] == expected[-len(rest) :]


def test_another_seed_gives_another_order():
    def order(seed):
        return [step.batch.rows.tolist() for step in plan(epochs=1, seed=seed)]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_cosine_restarts_begin_at_the_peak_again():
    found = rates(schedule={"kind": "cosine_restarts", "num_cycles": 4}, warmup=0.0)
    assert [found[step] for step in (0, 25, 50, 75)] == [1.0] * 4
    assert found[24] < 0.01


def test_a_whole_number_of_warm_up_is_one_of_steps():
    assert rates(schedule="constant", warmup=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_share_of_one_or_more_is_refused():
    with pytest.raises(ValueError, match="100 is a number of steps"):
        TrainingSettings(warmup=1.5)


def test_a_bare_name_stands_for_a_block_of_that_kind():
    assert TrainingSettings(schedule="cosine") == TrainingSettings(schedule={"kind": "cosine"})
    assert TrainingSettings(optimizer="sgd").optimizer.momentum == 0.9
