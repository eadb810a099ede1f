"""How much memory a language model's worker needs, by hand and against trainings that run."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from alive import Alive
from kovar.data import DataSpec, prepare_dataset
from kovar.models import BuiltModel, select_targets
from kovar.models.size import LoraShape
from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.engine import Engine
from kovar.training.memory import estimate_training
from kovar.training.method import Full, Lora, apply_method
from kovar.training.tasks import TASKS
from tiny import build_tiny_decoder, build_tiny_encoder

LENGTH, ROWS = 64, 16
SHAPE = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 160,
    "pad_token_id": 0,
}
LLAMA = {"model_type": "llama", **SHAPE, "num_key_value_heads": 2}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 64}
BERT = {"model_type": "bert", **SHAPE, "max_position_embeddings": 64}
BF16 = ResolvedPrecision("bf16", "bfloat16", True, False, "")
FP32 = ResolvedPrecision("fp32", "float32", False, False, "")
RANK = 4
WIDE = {"vocab_size": 4000}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Rows of the greatest length, for either task."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [{"text": f"{number} " + "good film " * 60} for number in range(3 * ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = {"cache_dir": folder / "cache", "base_dir": folder}
    spec = DataSpec(source="rows.jsonl", evaluation=4, max_length=LENGTH)
    return {
        name: prepare_dataset(
            spec, layout=TASKS[name].layout, tokenizer_dir=build(folder / name), **places
        )
        for name, build in (("causal-lm", build_tiny_decoder), ("masked-lm", build_tiny_encoder))
    }


def peak(config, dataset, folder, *, precision, method=None, **settings):
    """Train for three steps; return the most bytes of tensors at once, and the model."""
    task = "masked-lm" if config["model_type"] == "bert" else "causal-lm"
    kind = AutoModelForMaskedLM if task == "masked-lm" else AutoModelForCausalLM
    fields = {name: value for name, value in config.items() if name != "model_type"}
    torch.manual_seed(0)
    made = AutoConfig.for_model(config["model_type"], **fields)
    model = kind.from_config(made, attn_implementation="sdpa")
    select_targets(model)
    weights = settings.get("weights", "fp32")
    engine = Engine(
        apply_method(BuiltModel(model, frozenset()), method or Full()),
        dataset,
        task=TASKS[task],
        settings=TrainingSettings(
            max_tokens=ROWS * LENGTH, max_steps=3, checkpoint_every=1, **settings
        ),
        precision=precision,
        weights=weights,
        device=torch.device("cpu"),
        report=lambda event, **fields: None,
    )
    with Alive([*engine.model.parameters(), *engine.model.buffers()]) as alive:
        engine.train(CheckpointFolder(folder, keep=1))
    return alive.peak


@pytest.mark.parametrize(
    ("config", "precision", "settings"),
    [
        (LLAMA | WIDE, FP32, {}),
        (LLAMA | WIDE, BF16, {}),
        (LLAMA | WIDE, BF16, {"weights": "bf16"}),
        (LLAMA | {"vocab_size": 300, "tie_word_embeddings": True}, FP32, {}),
        (
            LLAMA | {"vocab_size": 300, "num_hidden_layers": 8},
            FP32,
            {"gradient_checkpointing": True},
        ),
        (
            LLAMA | {"vocab_size": 300, "num_hidden_layers": 8},
            BF16,
            {"gradient_checkpointing": True},
        ),
        (GPT2 | {"vocab_size": 300}, FP32, {}),
        (BERT | WIDE, BF16, {}),
        (BERT | {"vocab_size": 300}, FP32, {"gradient_checkpointing": True}),
    ],
)
def test_a_training_that_runs_needs_what_is_estimated(
    config, precision, settings, datasets, tmp_path
):
    masked = config["model_type"] == "bert"
    dataset = datasets["masked-lm" if masked else "causal-lm"]
    measured = peak(config, dataset, tmp_path, precision=precision, **settings)
    memory = estimate(config, precision.precision, settings, masked=masked)
    expected = memory.total - memory.runtime - memory.fragmentation
    assert measured == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("precision", [FP32, BF16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_adapter_that_is_trained_needs_what_is_estimated(
    precision, checkpointing, datasets, tmp_path
):
    pytest.importorskip("peft")
    config = LLAMA | {"vocab_size": 300, "num_hidden_layers": 6}
    settings = {"gradient_checkpointing": checkpointing}
    measured = peak(
        config,
        datasets["causal-lm"],
        tmp_path,
        precision=precision,
        method=Lora(rank=RANK, dropout=0.1),
        **settings,
    )
    lora = LoraShape(RANK, ("all-linear",), 0.1)
    memory = estimate(config, precision.precision, settings, lora=lora)
    expected = memory.total - memory.runtime - memory.fragmentation
    assert measured == pytest.approx(expected, rel=0.1)


def estimate(config, precision, settings, *, masked=False, **options):
    """Estimate a step of full rows on a CPU."""
    return estimate_training(
        config | ({"architectures": ["BertForMaskedLM"]} if masked else {}),
        TrainingSettings(max_tokens=ROWS * LENGTH, **settings),
        num_workers=1,
        max_length=LENGTH,
        num_labels=2,
        precision=precision,
        device_kind="cpu",
        predicted_share=0.15 if masked else (LENGTH - 1) / LENGTH,
        several_documents=not masked,
        **options,
    ).at("step")
