from __future__ import annotations

from pathlib import Path

import pytest

from kovar.inference import Runtime, load_runtime
from tiny import build_tiny_encoder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    return build_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def classifier_folder(tiny_encoder, tmp_path_factory) -> Path:
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny_encoder, id2label={0: "negative", 1: "positive"}
        )
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((tiny_encoder / "tokenizer.json").read_bytes())
    return folder


@pytest.fixture(scope="session")
def runtime(classifier_folder) -> Runtime:
    return load_runtime(classifier_folder, precision="fp32")
