"""Masked and causal language models in the engine."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from kovar.data import DataSpec, prepare_dataset
from kovar.models import check_folder, load_classifier, save_language_model
from kovar.models.architecture import DECODERS
from kovar.models.language import build_language_model
from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.engine import Engine
from kovar.training.method import Full, Lora, apply_method
from kovar.training.padding import ResolvedPadding
from kovar.training.tasks import TASKS
from tiny import build_tiny_decoder, build_tiny_encoder

FP32 = ResolvedPrecision("fp32", "float32", False, False, "test")
FP64 = ResolvedPrecision("fp32", "float64", False, False, "test")
SETTINGS = TrainingSettings(epochs=3, max_tokens=256, learning_rate=0.01, checkpoint_every=4)
TASK_NAMES = ("masked-lm", "causal-lm")


def sentences():
    """Short texts of which the end follows from the beginning."""
    things, words = ("film", "movie", "story", "plot"), ("good", "bad", "fine", "dull", "weak")
    return [f"the {thing} was {word} {n}" for n in range(3) for thing in things for word in words]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A base and a data set for each task."""
    folder = tmp_path_factory.mktemp("language")
    rows = [
        {
            "text": text,
            "messages": [
                {"role": "user", "content": text[:8]},
                {"role": "assistant", "content": text[8:]},
            ],
        }
        for text in sentences()
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {"cache_dir": folder / "cache", "base_dir": folder}
    found = {}
    for name, build in (("masked-lm", build_tiny_encoder), ("causal-lm", build_tiny_decoder)):
        base = check_folder(build(folder / name), source="tiny")
        spec = DataSpec(source="rows.jsonl", evaluation=10, max_length=64)
        found[name] = (
            base,
            prepare_dataset(spec, layout=TASKS[name].layout, tokenizer_dir=base.folder, **places),
        )
    spec = spec.model_copy(update={"messages": "messages"})
    places["tokenizer_dir"] = base.folder
    found["chat"] = base, prepare_dataset(spec, layout="causal-text", **places)
    return found


@pytest.fixture
def engine_of(inputs):
    def build(name, settings=SETTINGS, *, precision=FP32, method=None, events=None, **options):
        base, dataset = inputs[name]
        task = TASKS["causal-lm" if name == "chat" else name]
        torch.manual_seed(0)
        model = apply_method(task.build_model(base, dataset, dropout=0.0), method or Full())
        return Engine(
            model.double() if precision is FP64 else model,
            dataset,
            task=task,
            settings=settings,
            precision=precision,
            device=torch.device("cpu"),
            report=lambda event, **fields: (
                events.append((event, fields)) if events is not None else None
            ),
            **options,
        )

    return build


@pytest.mark.parametrize("name", [*TASK_NAMES, "chat"])
def test_perplexity_falls(name, engine_of, tmp_path):
    events = []
    engine_of(name, events=events).train(CheckpointFolder(tmp_path, keep=1))
    found = [fields["metrics"] for event, fields in events if event == "evaluated"]
    assert len(found) == 3
    assert found[-1]["perplexity"] < 0.7 * found[0]["perplexity"]
    assert 0 <= found[-1]["token_accuracy"] <= 1


@pytest.mark.parametrize("name", [*TASK_NAMES, "chat"])
def test_an_interrupted_run_ends_with_the_same_bits(name, engine_of, tmp_path):
    whole = engine_of(name)
    whole.train(CheckpointFolder(tmp_path / "whole", keep=9))
    checkpoints = CheckpointFolder(tmp_path / "whole", keep=9)
    again = engine_of(name)
    assert 0 < checkpoints.newest().step < len(again.steps)
    again.train(checkpoints)
    for (key, one), (_, other) in zip(
        whole.model.state_dict().items(), again.model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), key


@pytest.mark.parametrize("name", TASK_NAMES)
def test_micro_batches_change_nothing(name, engine_of, tmp_path):
    weights = []
    for tokens in (None, 64):
        settings = SETTINGS.model_copy(update={"micro_batch_tokens": tokens, "max_steps": 3})
        engine = engine_of(name, settings, precision=FP64)
        engine.train(CheckpointFolder(tmp_path / str(tokens), keep=1))
        weights.append(engine.model.state_dict())
    for key, whole in weights[0].items():
        torch.testing.assert_close(whole, weights[1][key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [*TASK_NAMES, "chat"])
def test_rows_in_one_line_teach_the_same(name, engine_of, tmp_path):
    weights = []
    for padding_free in (False, True):
        engine = engine_of(
            name,
            SETTINGS.model_copy(update={"max_steps": 3}),
            precision=FP64,
            padding=ResolvedPadding(padding_free, "test"),
        )
        engine.train(CheckpointFolder(tmp_path / str(padding_free), keep=1))
        weights.append(engine.model.state_dict())
    for key, padded in weights[0].items():
        torch.testing.assert_close(padded, weights[1][key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_documents_in_one_row_do_not_see_each_other(kind, tmp_path):
    base = check_folder(build_tiny_decoder(tmp_path, kind=kind), source=kind)
    model = build_language_model(base, head="causal-lm", dropout=0.0).model.double().eval()
    ids = torch.randint(3, 200, (1, 12), generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[*range(5), *range(7)]])
    packed = model(input_ids=ids, position_ids=positions).logits
    apart = [model(input_ids=ids[:, a:b]).logits for a, b in pairwise((0, 5, 12))]
    torch.testing.assert_close(packed, torch.cat(apart, dim=1), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(model(input_ids=ids).logits, packed)


def test_documents_stay_apart_in_the_model_that_the_engine_trains(engine_of):
    model = engine_of("causal-lm", precision=FP64).model.train()
    ids = torch.arange(3, 15).reshape(1, 12)
    packed = model(input_ids=ids, position_ids=torch.tensor([[*range(5), *range(7)]])).logits
    apart = [model(input_ids=ids[:, a:b]).logits for a, b in pairwise((0, 5, 12))]
    torch.testing.assert_close(packed, torch.cat(apart, dim=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_only_the_asked_places_are_computed_and_they_are_the_same(name, engine_of):
    model = engine_of(name).model.eval()
    ids = torch.arange(5, 17).reshape(2, 6)
    places = torch.tensor([1, 4, 7])
    some = model(input_ids=ids, target_positions=places).logits
    assert some.shape == (3, model.config.vocab_size)
    torch.testing.assert_close(some, model(input_ids=ids).logits.reshape(12, -1)[places])


@pytest.mark.parametrize("name", TASK_NAMES)
def test_a_saved_language_model_is_the_same_again(name, inputs, engine_of, tmp_path):
    base, _ = inputs[name]
    model = engine_of(name).model.eval()
    save_language_model(model, base, tmp_path, max_length=32)
    loaded = load_classifier(check_folder(tmp_path, source="x")).eval()
    ids = torch.arange(5, 17).reshape(2, 6)
    assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)
    stored = load_file(tmp_path / "model.safetensors")
    assert not {"lm_head.weight", "cls.predictions.decoder.weight"} & (
        set(stored) if model.config.tie_word_embeddings else set()
    )


@pytest.mark.parametrize("name", TASK_NAMES)
def test_an_adapter_trains_a_language_model(name, engine_of, tmp_path):
    events = []
    engine = engine_of(name, method=Lora(rank=4), events=events)
    engine.train(CheckpointFolder(tmp_path, keep=1))
    losses = [fields["loss"] for event, fields in events if event == "step"]
    assert losses[-1] < losses[0]
    frozen = [n for n, p in engine.model.named_parameters() if not p.requires_grad]
    assert any("embed" in n for n in frozen)
