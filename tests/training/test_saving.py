"""Checkpoints beside training: what is copied, when it counts, and what an error does."""

from __future__ import annotations

import threading

import pytest
import torch

from kovar.errors import CheckpointError
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.saving import CheckpointWriter

SETTINGS = TrainingSettings(epochs=4, max_tokens=128, learning_rate=0.005, checkpoint_every=20)


class SlowFolder(CheckpointFolder):
    """Writes when it is allowed to."""

    def __init__(self, root):
        super().__init__(root, keep=9)
        self.allowed = threading.Event()

    def save(self, part, **options):
        self.allowed.wait()
        return super().save(part, **options)


@pytest.fixture
def engine(engines):
    return engines(SETTINGS)


def writer_of(engine, folder):
    return CheckpointWriter(folder, engine.state, engine.parallel)


def test_training_goes_on_while_a_checkpoint_of_the_old_weights_is_written(engine, tmp_path):
    folder = SlowFolder(tmp_path)
    name, weight = next(iter(engine.parameters.items()))
    before = weight.detach().clone()
    with writer_of(engine, folder).open() as writer:
        writer.save(1)
        with torch.no_grad():
            weight.add_(1)
        assert writer.acknowledged() == []
        folder.allowed.set()
        writer.drain()
        (done,) = writer.acknowledged()
    assert done.saved.step == 1
    assert torch.equal(folder.newest().load()[0][name], before)


def test_a_save_waits_for_the_one_before(engine, tmp_path):
    folder = CheckpointFolder(tmp_path, keep=9)
    with writer_of(engine, folder).open() as writer:
        for step in (1, 2, 3):
            writer.save(step)
            assert len(list(tmp_path.glob("step-*"))) >= step - 1
    assert folder.newest().step == 3


def test_a_failed_write_is_raised_at_the_next_save_and_at_the_end(engine, tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=9)
    folder.root.write_text("a file where the folder belongs")
    with writer_of(engine, folder).open() as writer:
        writer.save(1)
        with pytest.raises(CheckpointError, match="step 1"):
            writer.save(2)
        with pytest.raises(CheckpointError, match="step 1"):
            writer.drain()


def test_every_acknowledged_checkpoint_is_reported_with_its_stall(engines, tmp_path):
    events = []
    engine = engines(SETTINGS, events=events)
    engine.train(CheckpointFolder(tmp_path, keep=9))
    saved = [fields for event, fields in events if event == "checkpoint"]
    assert [fields["step"] for fields in saved] == list(range(20, len(engine.steps), 20))
    assert all(fields["write_seconds"] > 0 and fields["seconds"] > 0 for fields in saved)


def test_a_run_that_cannot_save_ends_with_the_reason(engine, tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder belongs")
    with pytest.raises(CheckpointError, match="step 20"):
        engine.train(CheckpointFolder(tmp_path / "checkpoints", keep=9))


def test_training_waits_for_a_write_before_a_crash_would_repeat_too_much(engines, tmp_path):
    folder, steps = SlowFolder(tmp_path), []

    def hear():  # after each step; the checkpoint of step 20 is begun after this
        steps.append(folder.allowed.is_set())
        if len(steps) == 20:
            threading.Timer(0.2, folder.allowed.set).start()

    engines(SETTINGS, hears=hear).train(folder)
    assert steps[:20] == [False] * 20
    assert all(steps[20:])
