"""The engine alone: no Ray, no run folder."""

from __future__ import annotations

import threading

import pytest
import torch

from kovar.errors import NonFiniteError
from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.feed import Feed
from kovar.training.parallel import Parallel

FP16 = ResolvedPrecision("fp16", "float16", True, True, "test")
SETTINGS = TrainingSettings(epochs=4, max_tokens=128, learning_rate=0.005, checkpoint_every=20)


def test_the_loss_falls_and_every_step_is_reported_once(engines, tmp_path):
    events = []
    engine = engines(SETTINGS, events=events)
    engine.train(CheckpointFolder(tmp_path, keep=2))
    steps = [fields for event, fields in events if event == "step"]
    assert steps[-1]["step"] == len(engine.steps)
    assert sum(fields["targets"] for fields in steps) == 4 * 96
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_fp16_trains_with_a_loss_scale_that_survives_a_checkpoint(engines, tmp_path):
    checkpoints = CheckpointFolder(tmp_path, keep=2)
    events = []
    engines(SETTINGS, precision=FP16, events=events).train(checkpoints)
    saved = checkpoints.newest().load()[2]["scaler"]["scale"]
    again = engines(SETTINGS, precision=FP16)
    assert again.resume(checkpoints) == 40
    assert again.step.scaler.get_scale() == saved
    losses = [fields["loss"] for event, fields in events if event == "step"]
    assert losses[-1] < losses[0]


def test_gradients_that_overflow_at_every_step_end_the_run(engines, tmp_path):
    engine = engines(SETTINGS, precision=FP16)
    engine.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with torch.no_grad():
        engine.model.classifier.weight.mul_(1e30)
    with pytest.raises(NonFiniteError, match="loss scale"):
        engine.train(CheckpointFolder(tmp_path, keep=2))


def test_norms_and_biases_do_not_decay(engines):
    engine = engines(SETTINGS)
    decayed, plain = engine.optimizer.param_groups
    assert decayed["weight_decay"] == SETTINGS.weight_decay
    assert plain["weight_decay"] == 0
    assert {parameter.ndim for parameter in plain["params"]} == {1}
    assert {parameter.ndim for parameter in decayed["params"]} == {2}


def test_a_rank_without_rows_computes_with_the_others_and_counts_nothing(engines):
    engine = engines(SETTINGS)
    planned = min(engine.steps, key=lambda step: len(step.batch.rows))
    ranks = len(planned.batch.rows) + 1
    parallel = Parallel(ranks - 1, ranks, torch.device("cpu"))
    split = engine.dataset.open("train")
    prepared = Feed(engine.task, split, parallel=parallel).prepare(planned)
    (only,) = prepared.micro_batches
    assert only.weight == 0.0
    assert len(only.targets) == 1
    assert prepared.num_targets == len(planned.batch.rows)


def test_the_next_batch_is_prepared_in_order_and_an_abandoned_feed_ends_its_thread(engines):
    engine = engines(SETTINGS)
    batches = engine.feed.batches(engine.steps)
    assert [next(batches).planned.step for _ in range(3)] == [1, 2, 3]
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("kovar-feed")]


def test_the_reported_seconds_cover_all_steps_and_nothing_else(engines, tmp_path, monkeypatch):
    """The clock moves by one second a step and by a hundred in an evaluation or a checkpoint."""
    now, events = [0.0], []
    engine = engines(SETTINGS, events=events)
    monkeypatch.setattr("kovar.training.window.time.perf_counter", lambda: now[0])
    step, evaluate = engine.step, engine.evaluate
    engine.step = Ticking(step, now)
    engine.evaluate = lambda: (now.__setitem__(0, now[0] + 100), evaluate())[1]
    engine.train(CheckpointFolder(tmp_path, keep=2))
    seconds = [fields["seconds"] for event, fields in events if event == "step"]
    assert sum(seconds) == len(engine.steps)


class Ticking:
    """An optimizer step that takes a second of a clock that tests hold."""

    def __init__(self, step, now):
        self.step, self.now = step, now

    def __getattr__(self, name):
        return getattr(self.step, name)

    def __call__(self, *arguments):
        self.now[0] += 1
        return self.step(*arguments)
