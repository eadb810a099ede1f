"""Copies of checkpoints: whole or absent, beside training, and used when the folder is lost."""

from __future__ import annotations

import shutil
import threading

import pytest
import torch
from pyarrow import fs

from kovar.errors import SettingsError
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder, SavedCheckpoint
from kovar.training.mirror import Mirror, Uploads
from kovar.training.state import Snapshot
from object_store import CREDENTIALS, running_object_store

SETTINGS = TrainingSettings(epochs=2, max_tokens=128, learning_rate=0.005, checkpoint_every=5)


@pytest.fixture
def mirror(tmp_path):
    return Mirror.open(str(tmp_path / "remote"), "run")


def test_a_run_whose_folder_is_lost_goes_on_from_the_copy(engines, tmp_path, mirror):
    folder, events = CheckpointFolder(tmp_path / "run", keep=2, mirror=mirror), []
    whole = engines(SETTINGS, events=events)
    whole.train(folder)
    answers = [fields for event, fields in events if event == "mirrored"]
    assert [answer["error"] for answer in answers] == [None] * len(answers)
    shutil.rmtree(folder.root)
    again = engines(SETTINGS, events=events)
    again.train(folder)
    assert [fields["step"] for event, fields in events if event == "resumed"] == [25]
    assert all(torch.equal(again.parameters[n], weight) for n, weight in whole.parameters.items())


def test_the_newest_two_copies_are_kept_until_the_run_is_registered(tmp_path, mirror):
    folder = CheckpointFolder(tmp_path / "run", keep=9)
    for step in (1, 2, 3):
        mirror.send(folder.save(Snapshot(step, {}, {})))
    copies = tmp_path / "remote" / "run"
    assert sorted(path.name for path in copies.iterdir()) == ["step-00000002", "step-00000003"]
    mirror.remove()
    mirror.remove()
    assert not copies.exists()


def test_a_copy_without_its_manifest_is_not_used(tmp_path, mirror):
    folder = CheckpointFolder(tmp_path / "run", keep=9)
    for step in (1, 2):
        mirror.send(folder.save(Snapshot(step, {}, {})))
    (tmp_path / "remote" / "run" / "step-00000002" / "manifest.json").unlink()
    assert CheckpointFolder(tmp_path / "new", keep=9, mirror=mirror).newest().step == 1


def test_the_copy_of_the_best_step_is_kept_and_fetched_with_the_newest(tmp_path, mirror):
    folder = CheckpointFolder(tmp_path / "run", keep=1)
    for step in (1, 2, 3, 4):
        mirror.send(folder.save(Snapshot(step, {}, {}), pinned=1))
    found = CheckpointFolder(tmp_path / "new", keep=1, mirror=mirror)
    assert found.newest().step == 4
    assert found.verified(1).step == 1


def test_a_copy_takes_the_place_of_a_damaged_checkpoint(tmp_path, mirror):
    folder = CheckpointFolder(tmp_path / "run", keep=1, mirror=mirror)
    saved = folder.save(Snapshot(1, {}, {}))
    mirror.send(saved)
    (saved.folder / "state.json").write_text("damaged")
    assert folder.newest().step == 1


def test_a_checkpoint_that_is_replaced_while_it_travels_arrives_whole(tmp_path):
    class Busy(fs.LocalFileSystem):
        def open_output_stream(self, path):
            shutil.rmtree(saved.folder, ignore_errors=True)
            return super().open_output_stream(path)

    saved = CheckpointFolder(tmp_path / "run", keep=1).save(Snapshot(1, {}, {}))
    mirror = Mirror(Busy(), str(tmp_path / "remote"))
    mirror.send(saved)
    assert CheckpointFolder(tmp_path / "new", keep=1, mirror=mirror).newest().step == 1


def test_a_newer_checkpoint_replaces_the_one_that_waits():
    begun, allowed, sent = threading.Event(), threading.Event(), []

    class Slow:
        def send(self, saved):
            begun.set()
            allowed.wait()
            sent.append(saved.step)

    uploads = Uploads(Slow())
    uploads.offer(SavedCheckpoint(1, None, 0))
    begun.wait()
    uploads.offer(SavedCheckpoint(2, None, 0))
    uploads.offer(SavedCheckpoint(3, None, 0))
    assert uploads.answered() == []
    allowed.set()
    assert [answer.step for answer in uploads.answered(wait=True)] == [1, 3]
    uploads.close()
    assert sent == [1, 3]


def test_a_storage_that_refuses_is_reported_and_training_goes_on(engines, tmp_path):
    (tmp_path / "remote").write_text("a file where the folder belongs")
    mirror, events = Mirror.open(str(tmp_path / "remote"), "run"), []
    engine = engines(SETTINGS, events=events)
    folder = CheckpointFolder(tmp_path / "run", keep=2, mirror=mirror)
    engine.train(folder)
    errors = [fields["error"] for event, fields in events if event == "mirrored"]
    assert errors
    assert all("remote" in error for error in errors)


def test_an_unknown_storage_is_refused_with_what_is_allowed():
    with pytest.raises(SettingsError, match="mirror of checkpoints") as refused:
        Mirror.open("ftp://host/path", "run")
    assert "s3://" in str(refused.value)


def test_a_copy_in_an_object_store_comes_back_the_same(tmp_path, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with running_object_store() as server:
        mirror = Mirror.open(server.create_bucket("checkpoints"), "run")
        assert not mirror.restore(tmp_path)
        tensors = {"weight": torch.arange(4.0)}
        files = {"model.safetensors": tensors, "optimizer.safetensors": {}}
        mirror.send(CheckpointFolder(tmp_path / "run", keep=1).save(Snapshot(7, files, {})))
        found = CheckpointFolder(tmp_path / "new", keep=1, mirror=mirror).newest()
        assert found.step == 7
        assert found.load()[0]["weight"].tolist() == [0, 1, 2, 3]
        mirror.remove()
        assert not mirror.restore(tmp_path)
