"""What a plan refuses of `parallelism`, and what it knows of the memory of shared models."""

from __future__ import annotations

import pytest
from transformers import CONFIG_MAPPING

from kovar.errors import SpecError
from kovar.training import FineTuneSpec, TrainingSettings
from kovar.training.memory import estimate_training
from kovar.training.parallel import (
    DDP,
    Fsdp,
    TensorParallel,
    check_parallelism,
    check_tensor_plan,
)
from kovar.training.parallel.settings import TENSOR_ARCHITECTURES
from kovar.training.plan import plan_run

LLAMA = {"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 4}
BERT = {"model_type": "bert"}
PARAMETERS = 109_483_778


def spec(parallelism, *, workers=4, **changes):
    fields = {
        "kind": "finetune",
        "name": "tiny",
        "model": {"base": "encoder"},
        "data": {"source": "reviews.csv"},
        "parallelism": parallelism,
        "resources": {"num_workers": workers},
    }
    return FineTuneSpec.model_validate(fields | changes)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "tensor"])
def test_a_bare_name_is_a_block_of_that_kind(name):
    assert spec(name).parallelism.kind == name


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"parallelism": {"kind": "fsdp", "tensor_size": 3}}, "parallelism.tensor_size"),
        ({"parallelism": "tensor", "workers": {"min": 1, "max": 4}}, "resources.num_workers"),
        ({"parallelism": "tensor", "method": "lora"}, "method.kind"),
        ({"parallelism": "fsdp", "training": {"optimizer": "adamw8bit"}}, "training.optimizer"),
        ({"parallelism": "fsdp", "training": {"weights": "bf16"}}, "training.weights"),
        ({"parallelism": "fsdp", "precision": "fp8"}, "precision"),
    ],
)
def test_what_workers_cannot_share_is_refused_at_its_field(options, field):
    with pytest.raises(SpecError) as refused:
        check_parallelism(spec(**options))
    assert refused.value.context["field"] == field


def test_the_plan_refuses_a_grid_that_the_workers_do_not_form():
    with pytest.raises(SpecError, match="grid"):
        plan_run(spec({"kind": "fsdp", "tensor_size": 2}, workers=1))


def test_an_elastic_run_cuts_weights_over_however_many_workers_there_are():
    check_parallelism(spec("fsdp", workers={"min": 1, "max": 3}))


@pytest.mark.parametrize(
    ("config", "workers", "message"),
    [(BERT, 2, "no tensor-parallel plan for bert"), (LLAMA, 8, "8 heads and 4 key-value heads")],
)
def test_a_model_that_cannot_be_computed_together_is_refused(config, workers, message):
    with pytest.raises(SpecError, match=message):
        check_tensor_plan(spec("tensor", workers=workers), config)


def test_a_model_that_can_be_computed_together_passes():
    check_tensor_plan(spec("tensor"), LLAMA)
    check_tensor_plan(spec("fsdp"), BERT)


@pytest.mark.parametrize("kind", sorted(TENSOR_ARCHITECTURES))
def test_transformers_has_a_plan_for_each_architecture_that_is_named(kind):
    assert CONFIG_MAPPING[kind].base_model_tp_plan


def estimate(parallelism, *, num_workers, precision="fp32", device_kind="cuda"):
    return estimate_training(
        BERT,
        TrainingSettings(max_tokens=2048),
        num_workers=num_workers,
        max_length=128,
        num_labels=2,
        precision=precision,
        device_kind=device_kind,
        parallelism=parallelism,
    )


def test_fsdp_cuts_weights_gradients_and_moments_over_the_workers():
    memory = estimate(Fsdp(), num_workers=4)
    assert memory.weights == 4 * PARAMETERS // 4
    assert memory.optimizer == 8 * PARAMETERS // 4
    whole, cut = (estimate(kind, num_workers=4).at("step") for kind in (DDP, Fsdp()))
    assert cut.gradients < 0.6 * whole.gradients
    assert cut.activations == pytest.approx(whole.activations, rel=0.01)


def test_gathered_blocks_are_counted_in_the_type_in_which_they_travel():
    fp32, bf16 = (estimate(Fsdp(), num_workers=4, precision=p).at("step") for p in ("fp32", "bf16"))
    assert 0 < bf16.copies < fp32.copies < 4 * PARAMETERS
    kept = estimate(Fsdp(reshard=False), num_workers=4).at("step")
    assert kept.copies == 4 * PARAMETERS


def test_workers_that_compute_layers_together_share_the_rows_of_a_batch():
    alone, together = (
        estimate(kind, num_workers=2).at("step") for kind in (Fsdp(), TensorParallel())
    )
    assert together.activations > 1.5 * alone.activations
    assert together.copies == 0
