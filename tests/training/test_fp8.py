"""Linear layers that multiply in fp8, emulated where the chip has no units for it."""

from __future__ import annotations

import pytest
import torch

from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.fp8 import multiply_in_fp8

FP8 = ResolvedPrecision("fp8", "float8_e4m3fn", True, False, "test")
SETTINGS = TrainingSettings(epochs=4, max_tokens=128, learning_rate=0.005)


def test_losses_are_near_those_in_fp32_and_weights_keep_their_names(engines, tmp_path):
    told = {"plain": [], "fp8": []}
    plain = engines(SETTINGS, events=told["plain"])
    engine = engines(SETTINGS, precision=FP8, events=told["fp8"])
    assert list(engine.parameters) == list(plain.parameters)
    plain.train(CheckpointFolder(tmp_path / "plain", keep=2))
    engine.train(CheckpointFolder(tmp_path / "fp8", keep=2))
    losses, expected = ([f["loss"] for e, f in told[n] if e == "step"] for n in ("fp8", "plain"))
    assert losses == pytest.approx(expected, rel=0.05)
    assert {p.dtype for p in engine.parameters.values()} == {torch.float32}


def test_products_are_those_of_numbers_rounded_to_fp8():
    torch.manual_seed(0)
    layer, rows = torch.nn.Linear(32, 16), torch.randn(5, 32)
    expected = layer(rows).detach()
    model = torch.nn.Sequential(layer)
    multiply_in_fp8(model, emulate=True)
    found = model(rows).detach()
    error = float((found - expected).norm() / expected.norm())
    assert 1e-3 < error < 0.1


@pytest.mark.parametrize(("inner", "outer"), [(30, 16), (32, 2)])
def test_layers_that_tensor_cores_cannot_take_stay_as_they_are(inner, outer):
    model = torch.nn.Sequential(torch.nn.Linear(inner, outer))
    multiply_in_fp8(model, emulate=True)
    assert type(model[0]) is torch.nn.Linear
