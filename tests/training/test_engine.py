"""The engine alone: no Ray, no run folder."""

from __future__ import annotations

import pytest
import torch

from kovar.data import DataSpec, prepare_dataset
from kovar.errors import NonFiniteError
from kovar.models import build_classifier, check_folder
from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.engine import Engine
from tiny import build_tiny_encoder
from tiny_run import write_reviews

FP32 = ResolvedPrecision("fp32", "float32", False, False, "test")
FP16 = ResolvedPrecision("fp16", "float16", True, True, "test")
SETTINGS = TrainingSettings(epochs=4, max_tokens=128, learning_rate=0.005, checkpoint_every=20)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    base = check_folder(build_tiny_encoder(folder / "encoder"), source="tiny")
    write_reviews(folder / "reviews.csv")
    spec = DataSpec(source="reviews.csv", evaluation=24, max_length=32)
    dataset = prepare_dataset(
        spec, tokenizer_dir=base.folder, cache_dir=folder / "cache", base_dir=folder
    )
    return base, dataset


def build(inputs, precision=FP32, settings=SETTINGS, events=None):
    base, dataset = inputs
    torch.manual_seed(settings.seed)
    return Engine(
        build_classifier(base, labels=dataset.labels),
        dataset,
        settings=settings,
        precision=precision,
        device=torch.device("cpu"),
        report=lambda event, **fields: (
            events.append((event, fields)) if events is not None else None
        ),
    )


def test_the_loss_falls_and_every_step_is_reported_once(inputs, tmp_path):
    events = []
    engine = build(inputs, events=events)
    engine.train(CheckpointFolder(tmp_path, keep=2))
    steps = [fields for event, fields in events if event == "step"]
    assert steps[-1]["step"] == len(engine.steps)
    assert sum(fields["targets"] for fields in steps) == 4 * 96
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_fp16_trains_with_a_loss_scale_that_survives_a_checkpoint(inputs, tmp_path):
    checkpoints = CheckpointFolder(tmp_path, keep=2)
    events = []
    build(inputs, precision=FP16, events=events).train(checkpoints)
    saved = checkpoints.newest().load()[2]["scaler"]["scale"]
    again = build(inputs, precision=FP16)
    assert again._resume(checkpoints) == 40
    assert again.scaler.get_scale() == saved
    losses = [fields["loss"] for event, fields in events if event == "step"]
    assert losses[-1] < losses[0]


def test_gradients_that_overflow_at_every_step_end_the_run(inputs, tmp_path):
    engine = build(inputs, precision=FP16)
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with torch.no_grad():
        engine.model.classifier.weight.mul_(1e30)
    with pytest.raises(NonFiniteError, match="loss scale"):
        engine.train(CheckpointFolder(tmp_path, keep=2))


def test_norms_and_biases_do_not_decay(inputs):
    engine = build(inputs)
    decayed, plain = engine.optimizer.param_groups
    assert decayed["weight_decay"] == SETTINGS.weight_decay
    assert plain["weight_decay"] == 0
    assert {parameter.ndim for parameter in plain["params"]} == {1}
    assert {parameter.ndim for parameter in decayed["params"]} == {2}


def test_the_loss_of_a_batch_is_the_mean_over_its_rows_however_many_ranks(inputs):
    """Two ranks' gradients, averaged as DDP does, are those of one rank with the whole batch."""
    engine = build(
        inputs, settings=TrainingSettings(epochs=1, max_tokens=128, max_gradient_norm=1e9)
    )
    engine.model.double().eval()
    engine._ddp.train = lambda mode=True: engine.model  # no dropout: rows must not differ by rank
    planned = engine.steps[0]

    def gradient(rank, world_size):
        engine.rank, engine.world_size = rank, world_size
        seen = []
        engine.optimizer.step = lambda *a, **k: seen.append(
            engine.model.classifier.weight.grad.clone()
        )
        engine._step(planned, engine._new_window())
        return seen[0]

    whole = gradient(0, 1)
    halves = (gradient(0, 2) + gradient(1, 2)) / 2
    assert torch.allclose(whole, halves, rtol=1e-10, atol=1e-12)
