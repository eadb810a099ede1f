"""The newest checkpoint damaged anywhere: training falls back to the one before and finishes."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch

from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.state import Snapshot

SETTINGS = TrainingSettings(epochs=2, max_tokens=128, learning_rate=0.005, checkpoint_every=5)
LAST, BEFORE = "step-00000025", "step-00000020"


@pytest.fixture
def saved(engines, tmp_path):
    """Return the checkpoints that a whole run left, and its weights."""
    engine = engines(SETTINGS)
    engine.train(CheckpointFolder(tmp_path / "saved", keep=2))
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {LAST, BEFORE}
    return tmp_path / "saved", engine.parameters


def places(folder, *, number):
    """Draw places in a checkpoint's files, in every file as often as it has bytes."""
    files = sorted(folder.iterdir())
    sizes = [path.stat().st_size for path in files]
    draw = random.Random(number)
    chosen = draw.choices(files, weights=sizes, k=number - len(files)) + files
    return [(path.name, draw.randrange(path.stat().st_size)) for path in chosen]


def truncate(path, offset):
    path.write_bytes(path.read_bytes()[:offset])


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << (offset % 8)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_checkpoint_damaged_at_twenty_places_is_never_used(saved, tmp_path, damage):
    folder, _ = saved
    for name, offset in places(folder / LAST, number=20):
        torn = tmp_path / "torn"
        shutil.copytree(folder, torn)
        damage(torn / LAST / name, offset)
        found = CheckpointFolder(torn, keep=2).newest()
        assert (found.step, len(found.ignored)) == (20, 1), (name, offset)
        shutil.rmtree(torn)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_run_whose_newest_checkpoint_is_damaged_ends_with_the_same_bits(saved, engines, damage):
    folder, weights = saved
    damage(folder / LAST / "optimizer.safetensors", 40_000)
    events = []
    again = engines(SETTINGS, events=events)
    again.train(CheckpointFolder(folder, keep=2))
    (resumed,) = [fields for event, fields in events if event == "resumed"]
    assert resumed["step"] == 20
    assert resumed["ignored"][0].startswith(f"{LAST}: optimizer.safetensors")
    assert all(torch.equal(again.parameters[name], weights[name]) for name in weights)


def test_a_flip_in_the_manifest_that_leaves_it_readable_is_noticed(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, keep=2)
    manifest = checkpoints.save(Snapshot(1, {}, {})).folder / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"files": {}}))
    assert checkpoints.newest() is None
