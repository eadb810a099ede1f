from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kovar.registry import EnvironmentFacts, Registry, Signature, Version, VersionFacts
from kovar.registry.database import Database
from kovar.settings import Settings, load_settings
from postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole session."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def migrated(postgres) -> str:
    """Name of a database with the schema, which the databases of the tests are copied from."""
    url = postgres.create_database()
    Database(url).close()
    return url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request, tmp_path) -> Settings:
    """A new registry's places: every test that uses them runs on both kinds of database."""
    environ = {"KOVAR_HOME": str(tmp_path / "home")}
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        template = request.getfixturevalue("migrated")
        environ["KOVAR_DATABASE_URL"] = server.create_database(template=template)
    return load_settings(environ)


@pytest.fixture
def registry(settings) -> Iterator[Registry]:
    with Registry.open(settings) as registry:
        yield registry


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    save_file({"weight": np.arange(256, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "tokenizer" / "vocab.txt").write_text("[PAD]\n[UNK]\ngood\nbad\n")
    return folder


@pytest.fixture
def facts() -> VersionFacts:
    return VersionFacts(
        method="full",
        precision="fp32",
        seed=0,
        spec={"kind": "finetune", "learning_rate": 5e-5},
        metrics={"evaluation": {"accuracy": 0.84, "macro_f1": 0.83}},
        environment=EnvironmentFacts(python="3.11.9", packages={"torch": "2.9"}, chip="a CPU"),
        signature=Signature(task="text-classification", labels=("negative", "positive")),
    )


@pytest.fixture
def version(registry, folder, facts) -> Version:
    return registry.register("reviews", folder, facts=facts)


@pytest.fixture
def three(registry, folder, facts) -> list[Version]:
    """Versions 1, 2 and 3 of one model, of different seeds."""
    return [
        registry.register("reviews", folder, facts=facts.model_copy(update={"seed": seed}))
        for seed in range(3)
    ]
