"""How much memory a worker needs, by hand and against a training that runs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alive import Alive
from kovar.data import DataSpec, make_batches, prepare_dataset
from kovar.models import build_classifier, check_folder
from kovar.models.size import LoraShape, model_size
from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.engine import Engine
from kovar.training.memory import WORKER_BYTES, estimate_training, worker_tokens
from kovar.training.tasks import TASKS
from tiny import build_tiny_encoder
from tiny_run import write_reviews

BERT = {"model_type": "bert"}
PARAMETERS = 109_483_778


def estimate(config=BERT, *, max_tokens=1664, num_workers=1, **options):
    wanted = {
        "max_length": 64,
        "num_labels": 2,
        "precision": "fp32",
        "device_kind": "cpu",
        **options,
    }
    return estimate_training(
        config, TrainingSettings(max_tokens=max_tokens), num_workers=num_workers, **wanted
    )


def test_weights_and_moments_are_those_of_the_model():
    memory = estimate()
    assert memory.weights == 4 * PARAMETERS
    assert memory.optimizer == 8 * PARAMETERS
    assert memory.runtime == WORKER_BYTES


def test_lora_has_moments_of_what_it_trains_alone():
    memory = estimate(lora=LoraShape(8))
    adapters = 12 * 2 * 8 * (768 + 768)
    assert memory.weights == 4 * (PARAMETERS + adapters)
    assert memory.optimizer == 8 * (adapters + 2 * 769)


def test_gradients_of_several_workers_stay_in_their_buckets():
    alone, together = (estimate(num_workers=number).at("evaluation") for number in (1, 2))
    assert alone.gradients == 4 * model_size(BERT).embedding
    assert together.gradients == 4 * PARAMETERS


def test_a_gpu_keeps_no_gradients_of_tables_between_steps():
    assert estimate(device_kind="cuda").at("evaluation").gradients == 0


def test_the_smallest_budget_needs_all_gradients_at_once():
    memory = estimate(max_tokens=64).at("step")
    assert memory.gradients >= 0.7 * 4 * PARAMETERS


def test_the_version_is_checked_beside_the_trained_model():
    memory = estimate(max_tokens=64, lora=LoraShape(8))
    assert memory.moment == "version"
    assert memory.copies == 4 * PARAMETERS


def test_more_workers_need_fewer_activations_each():
    one, two = (estimate(max_tokens=8192, num_workers=n).at("step") for n in (1, 2))
    assert two.activations == pytest.approx(one.activations / 2, rel=0.05)


def test_autocast_saves_activations_and_not_weights():
    fp32, bf16 = (estimate(max_tokens=8192, precision=p) for p in ("fp32", "bf16"))
    assert bf16.weights == fp32.weights
    assert bf16.activations < fp32.activations


def test_an_unknown_architecture_has_no_estimate():
    assert estimate({"model_type": "mamba"}) is None
    assert estimate({"model_type": "llama"}) is None  # as a classifier


def test_a_run_that_ends_before_its_first_checkpoint_copies_nothing():
    settings = TrainingSettings(max_steps=90, checkpoint_every=100)
    options = {"max_length": 64, "num_labels": 2, "precision": "fp32", "device_kind": "cpu"}
    memory = estimate_training(BERT, settings, num_workers=1, **options)
    assert memory.at("step").copies == 0


def test_the_parts_add_up():
    memory = estimate()
    parts = ("weights", "gradients", "optimizer", "activations", "fragmentation", "copies")
    assert memory.total == memory.runtime + sum(getattr(memory, part) for part in parts)


@pytest.mark.parametrize("device", ["cpu", "cuda", "xla"])
def test_the_largest_budget_fits_and_one_more_row_does_not(device):
    memory, limit = estimate(device_kind=device), 8 << 30
    budget = memory.largest_token_budget(limit)
    assert estimate(max_tokens=budget, device_kind=device).total <= limit
    assert estimate(max_tokens=budget + 64, device_kind=device).total > limit


def test_no_budget_fits_into_less_than_the_weights():
    assert estimate().largest_token_budget(1 << 20) is None


def test_a_worker_is_dealt_the_larger_half_of_an_odd_batch():
    assert worker_tokens(3 * 64, 64, 1) == 3 * 64
    assert worker_tokens(3 * 64, 64, 2) == 2 * 64


@given(
    lengths=st.lists(st.integers(1, 64), min_size=1, max_size=50),
    max_tokens=st.integers(64, 700),
    num_workers=st.integers(1, 4),
)
@settings(max_examples=50, deadline=None)
def test_no_worker_is_ever_dealt_more_tokens(lengths, max_tokens, num_workers):
    batches = make_batches(
        np.array(lengths, dtype=np.int32),
        fingerprint="x",
        seed=0,
        epoch=0,
        max_tokens=max_tokens,
        max_length=64,
    )
    most = max(-(-len(batch.rows) // num_workers) * batch.length for batch in batches)
    assert most <= worker_tokens(max_tokens, 64, num_workers)


@pytest.mark.parametrize(
    ("precision", "weights"), [("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16")]
)
def test_a_training_that_runs_needs_what_is_estimated(tmp_path, precision, weights):
    base = check_folder(build_tiny_encoder(tmp_path / "encoder"), source="tiny")
    write_reviews(tmp_path / "reviews.csv")
    spec = DataSpec(source="reviews.csv", evaluation=24, max_length=32)
    dataset = prepare_dataset(
        spec, tokenizer_dir=base.folder, cache_dir=tmp_path / "cache", base_dir=tmp_path
    )
    chosen = ResolvedPrecision(
        precision,
        {"fp32": "float32", "bf16": "bfloat16"}[precision],
        precision == "bf16",
        False,
        "",
    )
    budget = TrainingSettings(max_tokens=1024, max_steps=3, checkpoint_every=1)
    model = build_classifier(base, labels=dataset.labels)
    engine = Engine(
        model,
        dataset,
        task=TASKS["text-classification"],
        settings=budget,
        precision=chosen,
        weights=weights,
        device=torch.device("cpu"),
        report=lambda event, **fields: None,
    )
    longest = max(planned.batch.longest for planned in engine.steps)
    most = max(len(p.batch.rows) * p.batch.longest for p in engine.steps)
    with Alive([*model.parameters(), *model.buffers()]) as alive:
        engine.train(CheckpointFolder(tmp_path / "checkpoints", keep=1))
    memory = estimate_training(
        base.config,
        TrainingSettings(max_tokens=most, weights=weights),
        num_workers=1,
        max_length=longest,
        num_labels=2,
        precision=precision,
        device_kind="cpu",
    ).at("step")
    assert model_size(base.config, num_labels=2).total == model.num_parameters()
    expected = memory.total - memory.runtime - memory.fragmentation
    assert alive.peak == pytest.approx(expected, rel=0.1)
