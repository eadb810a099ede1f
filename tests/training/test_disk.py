"""How much disk a run takes."""

import pytest
import torch

from kovar.data import DataSpec, prepare_dataset
from kovar.data.facts import read_facts
from kovar.models.size import LoraShape
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.disk import VERSION_EXTRAS_BYTES, estimate_disk
from kovar.training.state import Snapshot
from tiny import build_tiny_tokenizer

BERT = {"model_type": "bert"}
PARAMETERS = 109_483_778


def estimate(keep=2, data=None, lora=None, config=BERT):
    settings = TrainingSettings(keep_checkpoints=keep)
    return estimate_disk(config, settings, num_labels=2, data=data, lora=lora)


def test_kept_checkpoints_and_the_next_hold_weights_and_two_moments():
    assert estimate(keep=2).checkpoints == 3 * 12 * PARAMETERS


def test_lora_keeps_what_it_trains_alone():
    trained = 12 * 2 * 8 * (768 + 768) + 2 * 769
    found = estimate(keep=1, lora=LoraShape(8))
    assert found.checkpoints == 2 * 12 * trained
    assert found.version == 2 * (4 * trained + VERSION_EXTRAS_BYTES)


def test_a_version_lies_in_the_run_and_in_the_registry():
    assert estimate().version == 2 * (4 * PARAMETERS + VERSION_EXTRAS_BYTES)


def test_unknown_rows_and_unknown_models_are_not_guessed():
    assert estimate().tokenized is None
    assert estimate(config={"model_type": "mamba"}) is None


def test_a_checkpoint_is_as_large_as_its_tensors(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=1)
    tensors = {"a": torch.zeros(10_000)}
    moments = {**tensors, "b": torch.zeros(10_000)}
    files = {"model.safetensors": tensors, "optimizer.safetensors": moments}
    size = folder.save(Snapshot(1, files, {})).size_bytes
    assert size == pytest.approx(3 * 40_000, rel=0.01)


def test_tokenized_rows_are_as_large_as_their_files(tmp_path):
    build_tiny_tokenizer(tmp_path / "tokenizer")
    lines = [f'{{"text": "a good film {n}", "label": {n % 2}}}\n' for n in range(4000)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    spec = DataSpec(source="rows.jsonl", evaluation=400, max_length=32)
    places = {"cache_dir": tmp_path / "cache", "base_dir": tmp_path}
    dataset = prepare_dataset(spec, tokenizer_dir=tmp_path / "tokenizer", **places)
    digest = dataset.facts["tokenizer_sha256"]
    data = read_facts(spec, tokenizer_digest=digest, **places)
    size = sum(file.stat().st_size for file in dataset.folder.glob("*.arrow"))
    assert estimate(data=data).tokenized == pytest.approx(size, rel=0.1)
