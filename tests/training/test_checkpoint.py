"""Checkpoints: whole or absent, and the newest one that verifies is used."""

import json

import pytest
import torch

from kovar.training.checkpoint import CheckpointFolder


@pytest.fixture
def checkpoints(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", keep=2)


def save(checkpoints, step):
    return checkpoints.save(
        step,
        model={"weight": torch.full((4,), float(step))},
        optimizer={"step/weight": torch.tensor(float(step))},
        state={"num_steps": 9},
    )


def test_a_saved_checkpoint_loads_with_model_optimizer_and_state(checkpoints):
    save(checkpoints, 3)
    model, optimizer, state = checkpoints.newest().load()
    assert model["weight"].tolist() == [3.0] * 4
    assert optimizer["step/weight"].item() == 3.0
    assert state == {"step": 3, "num_steps": 9}


def test_only_the_newest_are_kept(checkpoints):
    for step in (1, 2, 3):
        save(checkpoints, step)
    assert [path.name for path in sorted(checkpoints.root.iterdir())] == [
        "step-00000002",
        "step-00000003",
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_passed_over_and_named(checkpoints, name, damage):
    save(checkpoints, 1)
    path = save(checkpoints, 2) / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[-1] ^= 1
        path.write_bytes(content)
    found = checkpoints.newest()
    assert found.step == 1
    assert found.ignored[0].startswith("step-00000002:")
    assert name in found.ignored[0]
    assert not path.parent.exists()


def test_a_checkpoint_without_a_manifest_does_not_count(checkpoints):
    (save(checkpoints, 1) / "manifest.json").unlink()
    assert checkpoints.newest() is None


def test_what_an_interrupted_write_left_is_removed(checkpoints):
    leftover = checkpoints.root / ".partial-00000009-1"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    assert checkpoints.newest() is None
    assert not leftover.exists()


def test_a_step_that_is_saved_again_replaces_the_first(checkpoints):
    save(checkpoints, 1)
    (checkpoints.root / "step-00000001" / "state.json").write_text(json.dumps({"step": 0}))
    save(checkpoints, 1)
    assert checkpoints.newest().step == 1
