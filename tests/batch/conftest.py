"""A registered tiny version, and reviews to run it on."""

from __future__ import annotations

import pytest

from kovar.registry import Registry
from tiny_version import build_tiny_version, register_tiny_version, settings_in


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A registry with one version, `tiny@1`, the champion."""
    folder = tmp_path_factory.mktemp("batch")
    register_tiny_version(settings_in(folder), build_tiny_version(folder / "tiny"))
    return folder


@pytest.fixture(scope="session")
def settings(home):
    return settings_in(home)


@pytest.fixture
def registry(settings):
    with Registry.open(settings) as opened:
        yield opened
