"""Batches whose gradients are not finite."""

from __future__ import annotations

import pytest
import torch

from broken import BrokenRows
from kovar.errors import NonFiniteError
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.skips import Skips

SETTINGS = TrainingSettings(epochs=2, max_tokens=128, learning_rate=0.005, checkpoint_every=20)


def test_a_broken_batch_changes_nothing(engines):
    engine = engines(SETTINGS, task=BrokenRows(5))
    (broken,) = [s for s in engine.steps if 5 in s.batch.rows and s.epoch == 0]
    before = {name: p.detach().clone() for name, p in engine.parameters.items()}
    outcome = engine.step(engine.feed.prepare(broken), 0.1)
    assert not outcome.changed
    assert all(torch.equal(before[name], p) for name, p in engine.parameters.items())
    assert not engine.optimizer.state


def test_a_broken_row_costs_its_batches_and_the_run_goes_on(engines, tmp_path):
    events = []
    engine = engines(SETTINGS, task=BrokenRows(5), events=events)
    engine.train(CheckpointFolder(tmp_path, keep=2))
    broken = [s.step for s in engine.steps if 5 in s.batch.rows]
    assert [step for e, f in events if e == "skipped" for step in f["steps"]] == broken
    rows = sum(len(s.batch.rows) for s in engine.steps if s.step not in broken)
    assert sum(f["targets"] for e, f in events if e == "step") == rows


def test_a_resumed_run_remembers_what_it_skipped(engines, tmp_path):
    checkpoints = CheckpointFolder(tmp_path, keep=2)
    first = engines(SETTINGS, task=BrokenRows(5))
    first.train(checkpoints)
    again = engines(SETTINGS, task=BrokenRows(5))
    again.train(checkpoints)
    assert again.skips.steps == first.skips.steps
    assert all(torch.equal(p, again.parameters[name]) for name, p in first.parameters.items())


def test_many_broken_batches_are_the_fault_of_the_run(engines, tmp_path):
    engine = engines(SETTINGS, task=BrokenRows(*range(0, 96, 3)))
    with pytest.raises(NonFiniteError, match="not finite in"):
        engine.train(CheckpointFolder(tmp_path, keep=2))
    assert CheckpointFolder(tmp_path, keep=2).newest() is None


def test_a_row_of_skipped_steps_is_noticed_wherever_it_lies():
    skips = Skips(1000, scaled=False)
    taken = [(step, step not in (3, 4, 5, 6)) for step in range(1, 11)]
    assert skips.hear(taken) == (3, 4, 5, 6)
    assert skips.excess == "more than 3 steps in a row"


def test_skipped_steps_far_apart_are_bounded_by_a_share_of_the_run():
    skips = Skips(1000, scaled=False)
    skips.hear([(step, step % 50 != 0) for step in range(1, 501)])
    assert (len(skips.steps), skips.excess) == (10, None)
    skips.hear([(550, False)])
    assert skips.excess == "11 steps, where 10 are allowed"


def test_steps_that_a_loss_scaler_skips_are_its_own_business():
    skips = Skips(100, scaled=True)
    assert skips.hear([(step, False) for step in range(1, 17)]) == ()
    assert skips.excess is None


def test_the_best_step_is_saved_although_its_own_batch_was_skipped(engines, tmp_path):
    (broken,) = [s for s in engines(SETTINGS).steps if 5 in s.batch.rows and s.epoch == 0]
    settings = SETTINGS.model_copy(update={"keep_best": True, "evaluate_every": broken.step})
    events = []
    engine = engines(settings, task=BrokenRows(5), events=events)
    engine.train(CheckpointFolder(tmp_path, keep=9))
    assert broken.step in [fields["step"] for event, fields in events if event == "checkpoint"]
