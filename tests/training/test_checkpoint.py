"""Checkpoints: whole or absent, and the newest one that verifies is used."""

import json
from dataclasses import dataclass

import pytest
import torch

from kovar.errors import CheckpointError
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.state import Snapshot


@pytest.fixture
def checkpoints(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", keep=2)


def save(checkpoints, step):
    tensors = {
        "model.safetensors": {"weight": torch.full((4,), float(step))},
        "optimizer.safetensors": {"step/weight": torch.tensor(float(step))},
    }
    return checkpoints.save(Snapshot(step, tensors, {"num_steps": 9})).folder


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


@dataclass(frozen=True)
class Shard:
    """What one of several ranks writes."""

    step: int
    name: str

    def write(self, folder):
        (folder / self.name).write_text(self.name)
        return [self.name]


def test_rank_0_finishes_when_every_rank_has_written_its_part(checkpoints):
    assert checkpoints.save(Shard(5, "one"), rank=1, num_parts=2) is None
    assert not list(checkpoints.root.glob("step-*"))
    saved = checkpoints.save(Shard(5, "zero"), rank=0, num_parts=2)
    files = json.loads((saved.folder / "manifest.json").read_text())["files"]
    assert sorted(files) == ["one", "zero"]
    assert sorted(path.name for path in saved.folder.iterdir()) == ["manifest.json", "one", "zero"]
    assert saved.size_bytes == sum(path.stat().st_size for path in saved.folder.iterdir())


def test_a_damaged_part_of_any_rank_counts(checkpoints):
    checkpoints.save(Shard(5, "one"), rank=1, num_parts=2)
    saved = checkpoints.save(Shard(5, "zero"), num_parts=2)
    (saved.folder / "one").write_text("eno")
    with pytest.raises(CheckpointError, match="one does not match its digest"):
        checkpoints.verified(5)


def test_a_part_that_does_not_come_is_named(checkpoints, monkeypatch):
    monkeypatch.setattr("kovar.training.checkpoint.PARTS_TIMEOUT_S", 0.0)
    with pytest.raises(CheckpointError, match=r"lacks 1 of 2 parts .* \.part-1\.json"):
        checkpoints.save(Shard(5, "zero"), num_parts=2)


def test_a_disk_that_refuses_is_an_error_that_says_what_to_do(checkpoints):
    save(checkpoints, 1)
    (checkpoints.root / ".partial-00000002-0").write_text("in the way")
    with pytest.raises(CheckpointError, match="step 2 could not be written") as refused:
        save(checkpoints, 2)
    assert "make room" in refused.value.hint
    assert checkpoints.verified(1).step == 1
