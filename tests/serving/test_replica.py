from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from in_process import send
from kovar.errors import DamagedArtifactError, GoldenError
from kovar.registry import read_golden
from kovar.serving.replica import Replica
from kovar.serving.spec import ServingSpec
from kovar.serving.versions import BoundVersion
from tiny_version import TEXTS, build_tiny_version, register_tiny_version, settings_in

SPEC = ServingSpec(model="tiny")


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path)


@pytest.fixture
def folder(tmp_path):
    return build_tiny_version(tmp_path / "tiny")


def start(version, settings) -> Replica:
    return Replica(
        SPEC,
        [BoundVersion(version)],
        artifact_root=settings.artifact_root,
        cache_dir=settings.cache_dir,
    )


def test_a_replica_answers_as_the_version_was_registered(settings, folder):
    replica = start(register_tiny_version(settings, folder), settings)
    app = replica.__serve_build_asgi_app__()
    response = asyncio.run(send(app, "POST", "/v1/predict", json={"inputs": list(TEXTS)}))
    for example, answer in zip(
        read_golden(folder).examples, response.json()["predictions"], strict=True
    ):
        assert answer["scores"] == pytest.approx(example.scores, abs=1e-3)


def test_bodies_of_both_protocols_share_the_memory_of_one_replica(settings, folder):
    replica = start(register_tiny_version(settings, folder), settings)
    app = replica.__serve_build_asgi_app__()
    replica.answering.room._left = 0
    response = asyncio.run(send(app, "POST", "/v1/predict", json={"inputs": list(TEXTS)}))
    assert (response.status_code, response.json()["code"]) == (429, "bodies_full")


def test_a_replica_starts_while_the_database_is_away(settings, folder, tmp_path):
    version = register_tiny_version(settings, folder)
    (tmp_path / "registry.db").unlink()
    start(version, settings).check_health()


def test_a_replica_does_not_start_on_altered_weights(settings, folder):
    version = register_tiny_version(settings, folder)
    entry = next(f for f in version.manifest.files if f.path == "model.safetensors")
    blob = Path(settings.artifact_root, "sha256", entry.sha256[:2], entry.sha256)
    blob.chmod(0o600)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(DamagedArtifactError):
        start(version, settings)


def test_a_replica_that_does_not_reproduce_the_golden_examples_does_not_start(settings, tmp_path):
    wrong = build_tiny_version(tmp_path / "wrong", shift=0.1)
    version = register_tiny_version(settings, wrong)
    with pytest.raises(GoldenError, match="golden example"):
        start(version, settings)
