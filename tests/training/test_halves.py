"""Weights kept in bf16."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.halves import Halves
from kovar.training.method import Lora

BF16 = ResolvedPrecision("bf16", "bfloat16", True, False, "test")
SETTINGS = TrainingSettings(epochs=4, max_tokens=128, learning_rate=0.005, checkpoint_every=20)


def trained(engines, folder, **options):
    events = []
    engine = engines(SETTINGS, precision=BF16, weights="bf16", events=events, **options)
    engine.train(CheckpointFolder(folder, keep=2))
    return engine, [fields["loss"] for event, fields in events if event == "step"]


def test_updates_far_below_a_bf16_step_add_up_as_in_fp32():
    torch.manual_seed(0)
    expected = torch.randn(1000)
    high = torch.nn.Parameter(expected.bfloat16())
    expected = high.detach().float()
    halves = Halves({"w": high})
    halves.release()
    for _ in range(100):
        update = 1e-5 * torch.randn(1000)
        halves.join()
        halves.whole["w"].data.sub_(update)
        halves.split()
        expected -= update
    halves.join()
    assert torch.allclose(halves.whole["w"], expected, rtol=1e-6, atol=0)
    assert torch.equal(high, expected.bfloat16())


def test_halves_hold_every_fp32_number_but_for_one_bit_of_ties():
    torch.manual_seed(0)
    whole = torch.cat([torch.randn(10_000) * 10.0**power for power in range(-30, 30, 6)])
    high = torch.nn.Parameter(torch.zeros_like(whole).bfloat16())
    halves = Halves({"w": high})
    halves.whole["w"].data = whole.clone()
    halves.split()
    halves.join()
    assert (halves.whole["w"] == whole).float().mean() > 0.999
    assert torch.allclose(halves.whole["w"], whole, rtol=2e-7, atol=0)


def test_losses_are_those_of_weights_in_fp32(engines, tmp_path):
    engine, losses = trained(engines, tmp_path / "halves")
    events = []
    engines(SETTINGS, events=events).train(CheckpointFolder(tmp_path / "whole", keep=2))
    expected = [fields["loss"] for event, fields in events if event == "step"]
    assert losses == pytest.approx(expected, rel=0.02)
    assert {p.dtype for p in engine.model.parameters()} == {torch.bfloat16}
    assert all(whole.numel() == 0 for whole in engine.halves.whole.values())


def test_a_resumed_run_in_bf16_ends_with_the_same_bits(engines, tmp_path):
    whole, _ = trained(engines, tmp_path)
    again, _ = trained(engines, tmp_path)
    assert again.resume(CheckpointFolder(tmp_path, keep=2)) < len(again.steps)
    assert all(torch.equal(p, again.parameters[n]) for n, p in whole.parameters.items()) is False
    third, _ = trained(engines, tmp_path)
    assert all(torch.equal(p, third.parameters[n]) for n, p in whole.parameters.items())


def test_weights_in_fp32_go_on_from_a_checkpoint_in_bf16_without_loss(engines, tmp_path):
    checkpoints = CheckpointFolder(tmp_path, keep=2)
    trained(engines, tmp_path)
    halves = engines(SETTINGS, precision=BF16, weights="bf16")
    halves.resume(checkpoints)
    halves.halves.join()
    whole = engines(SETTINGS, precision=BF16)
    whole.resume(checkpoints)
    assert all(torch.equal(p, halves.halves.whole[n]) for n, p in whole.parameters.items())


def test_an_adapter_stays_in_fp32_on_a_base_in_bf16(engines, tmp_path):
    engine, losses = trained(engines, tmp_path, method=Lora(rank=2, target_modules=("query",)))
    frozen = {p.dtype for p in engine.model.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}
    assert {p.dtype for p in engine.parameters.values()} == {torch.float32}
    assert losses[-1] < losses[0]


def test_an_average_of_weights_in_bf16_is_refused():
    with pytest.raises(ValidationError, match="ema_decay"):
        TrainingSettings(weights="bf16", ema_decay=0.9)


def test_a_rehearsal_leaves_no_gradient_to_the_first_step(engines):
    engine = engines(SETTINGS, precision=BF16, weights="bf16")
    engine.step.rehearse(engine.feed.sample(engine.steps[0]))
    assert all(p.grad is None for p in engine.parameters.values())
