"""Every optimizer and schedule learns, and goes on from a checkpoint with the same bits."""

from __future__ import annotations

import sys

import pytest
import torch

from kovar.errors import MissingExtraError
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.method import Dora, Full, Lora
from kovar.training.optimizer import AdamW8bit, check_optimizer

OPTIMIZERS = {
    "adamw": 0.005,
    "adamw8bit": 0.005,
    "adafactor": 0.2,
    "sgd": 0.02,
}
SCHEDULES = ("linear", "cosine", "cosine_restarts", "constant", "plateau")


def settings(**changes):
    base = {"epochs": 2, "max_tokens": 256, "checkpoint_every": 5, "evaluate_every": 4}
    return TrainingSettings(**(base | changes))


def train(engine, folder):
    engine.train(CheckpointFolder(folder, keep=9))
    return {name: p.detach().clone() for name, p in engine.parameters.items()}


def train_interrupted(build, folder):
    """Train to the end, take the later checkpoints away, and train from the first one."""
    train(build(), folder)
    first, *later = sorted(folder.glob("step-*"))
    assert later, first
    for path in later:
        path.rename(path.with_name(f"gone-{path.name}"))
    return train(build(), folder)


def same_bits(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_resumed_run_ends_with_the_same_bits_with_every_optimizer(engines, tmp_path, kind):
    def build():
        return engines(settings(optimizer=kind, learning_rate=OPTIMIZERS[kind], epochs=4))

    whole = train(build(), tmp_path / "whole")
    assert same_bits(whole, train_interrupted(build, tmp_path / "interrupted"))


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_resumed_run_ends_with_the_same_bits_with_every_schedule(engines, tmp_path, kind):
    def build():
        return engines(settings(schedule=kind, epochs=4, learning_rate=0.005))

    whole = train(build(), tmp_path / "whole")
    assert same_bits(whole, train_interrupted(build, tmp_path / "interrupted"))


@pytest.mark.parametrize(
    "changes",
    [{"ema_decay": 0.9}, {"gradient_checkpointing": True}, {"micro_batch_tokens": 64}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_resumed_run_ends_with_the_same_bits_with_every_option(engines, tmp_path, changes):
    def build():
        return engines(settings(epochs=4, learning_rate=0.005, **changes))

    whole = train(build(), tmp_path / "whole")
    assert same_bits(whole, train_interrupted(build, tmp_path / "interrupted"))


@pytest.mark.parametrize("method", [Full(freeze=("embeddings",)), Lora(dropout=0.1), Dora()])
def test_a_resumed_run_ends_with_the_same_bits_with_every_method(engines, tmp_path, method):
    def build():
        return engines(settings(epochs=4, learning_rate=0.005, ema_decay=0.9), method=method)

    whole = train(build(), tmp_path / "whole")
    assert same_bits(whole, train_interrupted(build, tmp_path / "interrupted"))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_learns_a_batch_by_heart(engines, kind):
    engine = engines(settings(optimizer=kind, dropout=0.0))
    batch = engine.feed.prepare(engine.steps[0])
    losses = [float(engine.step(batch, OPTIMIZERS[kind]).loss) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]


def test_8_bit_state_without_its_library_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "kovar-platform\[bitsandbytes\]"'):
        check_optimizer(AdamW8bit())


def test_8_bit_state_is_a_quarter_of_the_size(engines):
    engine = engines(settings(optimizer="adamw8bit", max_steps=1))
    weight = torch.nn.Parameter(torch.zeros(64, 128))
    engine.optimizer.add_param_group({"params": [weight]})
    weight.grad = torch.ones_like(weight)
    engine.optimizer.step()
    assert engine.optimizer.state[weight]["state1"].dtype == torch.uint8


def test_gradient_checkpointing_does_not_change_the_weights(engines, tmp_path):
    plain = train(engines(settings()), tmp_path / "plain")
    saving = train(engines(settings(gradient_checkpointing=True)), tmp_path / "saving")
    assert all(torch.allclose(plain[name], saving[name], atol=1e-6) for name in plain)
