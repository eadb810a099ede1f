"""How long a run takes."""

import pytest

from kovar.data.facts import DataFacts, UnknownData
from kovar.models.size import LoraShape, model_size
from kovar.resources.accelerators import ACCELERATORS
from kovar.training import TrainingSettings
from kovar.training.duration import (
    CPU_FLOPS,
    STARTUP_S,
    UTILIZATION,
    Duration,
    UnknownDuration,
    estimate_duration,
    flops_per_token,
    training_flops,
)

BERT = {"model_type": "bert"}
MATRICES = 12 * (4 * 768**2 + 2 * 768 * 3072)
DATA = DataFacts(1000, 0, 50.0, 50.0, "1,000 training rows")


def estimate(config=BERT, data=DATA, *, settings=None, **options):
    return estimate_duration(
        config,
        settings or TrainingSettings(epochs=1),
        data,
        **{
            "num_workers": 1,
            "num_labels": 2,
            "precision": "fp32",
            **options,
        },
    )


def test_a_token_costs_six_operations_per_weight_and_its_share_of_attention():
    size = model_size(BERT, num_labels=2)
    assert flops_per_token(size, length=64) == 6 * MATRICES + 12 * 12 * 768 * 64


def test_frozen_weights_cost_four():
    size, lora = model_size(BERT, num_labels=2), LoraShape(8)
    adapters = 6 * size.adapters(lora)
    assert flops_per_token(size, length=0, lora=lora) == 4 * MATRICES + adapters


def test_a_maximum_of_steps_ends_the_work():
    size = model_size(BERT, num_labels=2)
    # 50,000 tokens make 31 steps of 1,664.
    settings = TrainingSettings(epochs=2, max_steps=31)
    half = training_flops(size, settings, DATA, length=50)
    assert half == training_flops(size, TrainingSettings(epochs=1), DATA, length=50)


def test_each_evaluation_costs_a_forward_pass():
    size, data = model_size(BERT, num_labels=2), DataFacts(1000, 1000, 50.0, 50.0, "")
    settings = TrainingSettings(epochs=1)
    forward = 2 * 1000 * 50 * flops_per_token(size, length=50) / 3
    assert training_flops(size, settings, data, length=50) == pytest.approx(
        training_flops(size, settings, DATA, length=50) + forward
    )


def test_cores_are_taken_at_a_stated_rate():
    found = estimate(cpus=2)
    flops = 50_000 * flops_per_token(model_size(BERT, num_labels=2), length=50)
    assert isinstance(found, Duration)
    assert found.low_s == pytest.approx(STARTUP_S[0] + flops / (2 * CPU_FLOPS["fp32"][1]))
    assert "per core" in found.reason


def test_a_chip_is_taken_at_a_share_of_its_peak():
    chip = ACCELERATORS["A100"]
    found = estimate(accelerator=chip, precision="bf16")
    flops = 50_000 * flops_per_token(model_size(BERT, num_labels=2), length=50)
    fast = UTILIZATION[1] * chip.flops["bf16"]
    assert found.low_s == pytest.approx(STARTUP_S[0] + flops / fast)
    assert found.low_s < found.high_s


def test_workers_and_chips_share_the_work():
    chip, one = ACCELERATORS["T4"], {"precision": "fp16"}
    alone = estimate(accelerator=chip, **one).high_s - STARTUP_S[1]
    four = estimate(accelerator=chip, num_workers=2, chips=2, **one).high_s - STARTUP_S[1]
    assert four == pytest.approx(alone / 4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"config": {"model_type": "mamba"}}, "mamba"),
        ({"data": UnknownData("not downloaded")}, "not downloaded"),
        ({"accelerator": ACCELERATORS["T4"], "precision": "bf16"}, "bf16"),
    ],
)
def test_what_is_unknown_has_a_reason_instead(options, reason):
    found = estimate(**options)
    assert isinstance(found, UnknownDuration)
    assert reason in found.reason
