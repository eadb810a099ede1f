"""Ranks that share a model in any way train what one rank trains."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from doomed import tiny_task
from kovar.data import DataSpec, prepare_dataset
from kovar.training import TrainingSettings
from kovar.training.method import Dora, Full, Lora
from kovar.training.parallel import DDP, Ddp, Fsdp, TensorParallel
from kovar.training.tasks import TASKS
from kovar.training.worker import execute
from ranks import BF16, FP16, FP32, Case, finish, go_on, on_ranks, train
from tiny import build_tiny_decoder
from tiny_run import write_reviews

SETTINGS = TrainingSettings(
    epochs=1, max_tokens=256, learning_rate=0.01, warmup=0.0, micro_batch_tokens=64, dropout=0.0
)
FSDP, TENSOR, GRID = Fsdp(), TensorParallel(), Fsdp(tensor_size=2)
LLAMA = {"decoder": True}
CASES = {
    "fsdp of two": (2, {"parallelism": FSDP}),
    "fsdp of three": (3, {"parallelism": FSDP}),
    "fsdp that keeps gathered weights": (2, {"parallelism": Fsdp(reshard=False)}),
    "fsdp of lora": (2, {"parallelism": FSDP, "method": Lora(rank=2)}),
    "fsdp of frozen layers": (2, {"parallelism": FSDP, "method": Full(freeze=("embeddings",))}),
    "tensor": (2, {"parallelism": TENSOR, **LLAMA}),
    "grid": (4, {"parallelism": GRID, **LLAMA}),
    "ddp of three": (3, {"parallelism": DDP}),
    "ddp of dora": (2, {"parallelism": DDP, "method": Dora(rank=2)}),
    "ddp with gradients in bf16": (2, {"parallelism": Ddp(gradient_compression="bf16")}),
}
LANGUAGE = {
    "language model on fsdp": (2, FSDP),
    "language model on tensor": (2, TENSOR),
    "language model on a grid": (4, GRID),
}
TOLERANCES = {"ddp with gradients in bf16": 5e-3}


@pytest.fixture(scope="module")
def inputs(tiny_inputs):
    base, dataset = tiny_inputs
    return base.folder, dataset.folder


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A decoder whose last layer is its embedding, and texts."""
    folder = tmp_path_factory.mktemp("language")
    base = build_tiny_decoder(folder / "decoder")
    config = AutoConfig.from_pretrained(base, tie_word_embeddings=True, num_key_value_heads=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    write_reviews(folder / "reviews.csv")
    dataset = prepare_dataset(
        DataSpec(source="reviews.csv", evaluation=24, max_length=64),
        layout=TASKS["causal-lm"].layout,
        tokenizer_dir=base,
        cache_dir=folder / "cache",
        base_dir=folder,
    )
    settings = SETTINGS.model_copy(update={"max_steps": 4})
    return Case(base, dataset.folder, settings, task="causal-lm")


@pytest.fixture(scope="module")
def shared(inputs, language, tmp_path_factory):
    """Each case trained by its ranks; the same processes take all of them."""
    works = [(size, train, Case(*inputs, SETTINGS, **options)) for size, options in CASES.values()]
    works += [
        (size, train, replace(language, parallelism=kind)) for size, kind in LANGUAGE.values()
    ]
    found = on_ranks(works, folder=tmp_path_factory.mktemp("stores"))
    return dict(zip([*CASES, *LANGUAGE], found, strict=True))


def distance(one, other):
    assert one.keys() == other.keys()
    return max(np.abs(one[name] - other[name]).max() for name in one)


@pytest.mark.parametrize("name", CASES)
def test_ranks_train_what_one_rank_trains(inputs, shared, name):
    _, options = CASES[name]
    alone = train(Case(*inputs, SETTINGS, **{**options, "parallelism": DDP}))
    assert distance(alone, shared[name]) < TOLERANCES.get(name, 1e-6)


@pytest.mark.parametrize("name", LANGUAGE)
def test_ranks_train_a_language_model_whose_tables_are_tied(language, shared, name):
    assert distance(train(language), shared[name]) < 1e-6


LONG = SETTINGS.model_copy(update={"epochs": 2, "checkpoint_every": 4, "ema_decay": 0.9})
RESUMED = {
    "fsdp of three": (3, {"parallelism": FSDP}),
    "fsdp of two in bf16": (2, {"parallelism": FSDP, "precision": BF16}),
    "fsdp of two in fp16": (2, {"parallelism": FSDP, "precision": FP16}),
    "tensor": (2, {"parallelism": TENSOR, **LLAMA}),
    "grid": (4, {"parallelism": GRID, **LLAMA}),
    "ddp of three": (3, {"parallelism": DDP}),
    "ddp of four with micro-batches": (4, {"parallelism": DDP}),
}


@pytest.fixture(scope="module")
def resumed(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resumed")
    works = [
        (
            size,
            go_on,
            Case(*inputs, LONG, **{"precision": FP32, "checkpoints": folder / str(n), **options}),
        )
        for n, (size, options) in enumerate(RESUMED.values())
    ]
    return dict(zip(RESUMED, on_ranks(works, folder=folder), strict=True))


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_that_goes_on_ends_with_the_same_bits(resumed, name):
    whole, again = resumed[name]
    assert again.all("resumed")
    assert distance(whole.weights, again.weights) == 0


@pytest.mark.parametrize("name", ["fsdp of three", "grid", "tensor"])
def test_ranks_that_hold_parts_score_as_one_rank_does(inputs, resumed, tmp_path, name):
    options = {**RESUMED[name][1], "parallelism": DDP, "precision": FP32}
    alone = finish(Case(*inputs, LONG, checkpoints=tmp_path, **options))
    scores = [run.all("evaluated")[-1]["metrics"] for run in (alone, resumed[name][0])]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@pytest.fixture(scope="module")
def moved(inputs, tmp_path_factory):
    """An FSDP run of two ranks that goes on with three, then with one."""
    folder = tmp_path_factory.mktemp("moved")
    settings = LONG.model_copy(update={"keep_best": True})
    case = Case(*inputs, settings, parallelism=FSDP, checkpoints=folder / "checkpoints")
    found = on_ranks([(2, finish, case), (3, finish, case)], folder=folder)
    alone = Case(*inputs, settings, checkpoints=folder / "alone")
    return finish(alone), [*found, finish(case)]


def test_other_numbers_of_workers_go_on_from_sharded_checkpoints(moved):
    alone, found = moved
    assert [bool(one.all("resumed")) for one in found] == [False, True, True]
    assert max(distance(alone.weights, one.weights) for one in found) < 1e-6


def test_evaluations_of_averaged_weights_agree_with_those_of_one_worker(moved):
    alone, found = moved
    for one in found:
        last = one.all("evaluated")[-1]
        assert last["metrics"] == pytest.approx(alone.all("evaluated")[-1]["metrics"], abs=1e-6)


def work(task, rank, world_size):
    execute(task, device=torch.device("cpu"), rank=rank, world_size=world_size)


def test_the_version_of_workers_that_cut_the_model_is_one_plain_file(tmp_path):
    training = {"epochs": 2, "dropout": 0.0, "keep_best": True, "ema_decay": 0.9}
    alone = tiny_task(tmp_path, run="alone", **training)
    execute(alone, device=torch.device("cpu"))
    spec = alone.spec.model_copy(update={"parallelism": FSDP})
    cut = replace(alone, spec=spec, folder=tmp_path / "cut")
    on_ranks([(2, work, cut)], folder=tmp_path)
    one, other = (load_file(task.folder / "model/model.safetensors") for task in (alone, cut))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    scores = [json.loads((task.folder / "metrics.json").read_text()) for task in (alone, cut)]
    assert scores[0]["evaluation"]["accuracy"] == scores[1]["evaluation"]["accuracy"]
