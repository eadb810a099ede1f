"""Attempts: the newest one alone may write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from doomed import tiny_task
from kovar.errors import SupersededError
from kovar.events import EventLog, read_events
from kovar.training.attempt import Attempt
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.folder import RunFolder
from kovar.training.state import Snapshot
from kovar.training.worker import execute


def test_numbers_are_claimed_once_whoever_asks_at_the_same_time(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        claimed = list(threads.map(lambda _: Attempt.claim(tmp_path).number, range(40)))
    assert sorted(claimed) == list(range(1, 41))


def test_a_replaced_attempt_saves_no_checkpoint_and_leaves_nothing(tmp_path):
    old = Attempt.claim(tmp_path / "attempts")
    stale = CheckpointFolder(tmp_path / "checkpoints", keep=1, attempt=old)
    stale.save(Snapshot(1, {}, {}))
    Attempt.claim(tmp_path / "attempts")
    with pytest.raises(SupersededError, match=r"attempt 1 .* was replaced"):
        stale.save(Snapshot(2, {}, {}))
    assert [path.name for path in stale.root.iterdir()] == ["step-00000001"]


class Replaced(Snapshot):
    """Is written by an attempt that is replaced meanwhile, when the later one has looked round."""

    def write(self, folder):
        newer = Attempt.claim(folder.parents[1] / "attempts")
        found = CheckpointFolder(folder.parent, keep=1, attempt=newer).newest()
        assert found.step == 1
        folder.mkdir()
        return super().write(folder)


def test_an_attempt_that_is_replaced_while_it_writes_does_not_finish(tmp_path):
    old = Attempt.claim(tmp_path / "attempts")
    stale = CheckpointFolder(tmp_path / "checkpoints", keep=1, attempt=old)
    stale.save(Snapshot(1, {}, {}))
    with pytest.raises(SupersededError):
        stale.save(Replaced(2, {}, {}))
    assert [path.name for path in stale.root.iterdir()] == ["step-00000001"]


def test_a_replaced_attempt_adds_no_event(tmp_path):
    old = Attempt.claim(tmp_path / "attempts")
    with EventLog(tmp_path / "events.jsonl", run="r", guard=old.check) as log:
        log.emit("finished", step=1, weights_digest="")
        Attempt.claim(tmp_path / "attempts")
        with pytest.raises(SupersededError):
            log.emit("finished", step=2, weights_digest="")
    assert [e["step"] for e in read_events(tmp_path / "events.jsonl")] == [1]


def test_an_attempt_that_is_replaced_after_its_last_step_writes_no_version(tmp_path):
    task = tiny_task(tmp_path, epochs=1)
    paths = RunFolder(task.folder)

    def replaced(event, **fields):
        if event == "step":
            Attempt.claim(paths.attempts)

    with pytest.raises(SupersededError):
        execute(task, device=torch.device("cpu"), observe=replaced)
    assert {path.name for path in paths.root.iterdir()} == {
        "attempts", "events.jsonl", "tensorboard",
    }  # fmt: skip
