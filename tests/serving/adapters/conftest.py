"""A registry with a whole model, four adapters of one base and one of another."""

from __future__ import annotations

import pytest

from tiny_adapter import build_tiny_adapter, register_tiny_adapter, register_tiny_base
from tiny_version import build_tiny_version, register_tiny_version, settings_in


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    settings = settings_in(folder)
    register_tiny_version(settings, build_tiny_version(folder / "films"), model="films")
    base = register_tiny_base(settings, folder / "base")
    for seed, name in enumerate(["a", "b", "c", "wrong"]):
        labels = ("bad", "fair", "good") if name == "c" else ("negative", "positive")
        shift = 0.2 if name == "wrong" else 0.0
        built = build_tiny_adapter(
            folder / name, folder / "base", seed=seed, labels=labels, shift=shift
        )
        register_tiny_adapter(settings, built, base, model=f"tenant-{name}", labels=labels)
    other = register_tiny_base(settings, folder / "other", model="other", seed=1)
    stray = build_tiny_adapter(folder / "stray", folder / "other", seed=9)
    register_tiny_adapter(settings, stray, other, model="tenant-stray")
    return settings
