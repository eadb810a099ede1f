from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tiny import build_tiny_encoder


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_encoder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A model folder that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "tiny-bert"))
