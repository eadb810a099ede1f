from __future__ import annotations

from pathlib import Path

import pytest

from kovar.inference import Runtime, load_runtime
from tiny import build_tiny_encoder
from tiny_version import build_tiny_classifier


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    return build_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory) -> Path:
    return build_tiny_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def runtime(classifier_folder) -> Runtime:
    return load_runtime(classifier_folder, precision="fp32")
