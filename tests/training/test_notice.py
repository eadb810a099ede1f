"""Notices that a machine goes away."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from kovar.errors import PreemptedError
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.notice import Terminations

SETTINGS = TrainingSettings(epochs=4, max_tokens=128, learning_rate=0.005, checkpoint_every=20)


@pytest.fixture
def handler():
    """Put SIGTERM back as it was."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_heard_while_somebody_listens_and_then_does_what_it_did(handler):
    taken = []
    signal.signal(signal.SIGTERM, lambda *_: taken.append("before"))
    terminations = Terminations()
    with terminations.listening() as told:
        assert told() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert told() == "SIGTERM"
    assert taken == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert taken == ["before"]


def test_what_a_listener_is_told_is_heard_once():
    terminations = Terminations()
    terminations.tell("too early")
    with terminations.listening() as told:
        assert told() is None
        terminations.tell("others go on")
        assert told() == "others go on"
    with terminations.listening() as told:
        assert told() is None


def test_a_second_sigterm_is_not_held_back(handler):
    taken = []
    signal.signal(signal.SIGTERM, lambda *_: taken.append("before"))
    with Terminations().listening() as told:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert told() == "SIGTERM"
    assert taken == ["before"]


def test_a_notice_saves_the_step_and_ends_the_attempt(engines, tmp_path):
    events, checkpoints = [], CheckpointFolder(tmp_path, keep=2)
    notices = iter([None] * 6 + ["the node is drained"])
    told = engines(SETTINGS, events=events, hears=lambda: next(notices))
    with pytest.raises(PreemptedError, match="after step 7: the node is drained"):
        told.train(checkpoints)
    assert events[-1] == ("preempted", {"step": 7, "reason": "the node is drained"})
    assert checkpoints.newest().step == 7
    again, undisturbed = engines(SETTINGS), engines(SETTINGS)
    again.train(checkpoints)
    undisturbed.train(CheckpointFolder(tmp_path / "undisturbed", keep=2))
    for name, weight in undisturbed.parameters.items():
        assert torch.equal(again.parameters[name], weight)
