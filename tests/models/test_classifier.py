from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kovar.errors import ModelError
from kovar.models import (
    ARCHITECTURES,
    BaseModelFiles,
    build_classifier,
    check_folder,
    load_tokenizer,
    save_model,
)


@pytest.fixture
def base(folder: Path) -> BaseModelFiles:
    return check_folder(folder, source="tiny-bert")


def build(base: BaseModelFiles, *labels: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    return build_classifier(base, labels=labels or ("bad", "good"), **fields)


def logits_of(model: Any) -> torch.Tensor:
    ids = torch.arange(5, 15).reshape(2, 5)
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(ids, torch.ones_like(ids)).logits
    return logits


def test_the_head_has_the_labels_and_the_weights_are_fp32(base: BaseModelFiles) -> None:
    model = build(base, "bad", "fair", "good")
    assert logits_of(model).shape == (2, 3)
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_encoder_keeps_its_weights(base: BaseModelFiles) -> None:
    stored = load_file(base.folder / "model.safetensors")
    weights = build(base).bert.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in stored.items())


def test_the_same_seed_draws_the_same_head(base: BaseModelFiles) -> None:
    assert torch.equal(logits_of(build(base)), logits_of(build(base)))


def test_building_prints_nothing(base: BaseModelFiles, capfd: pytest.CaptureFixture[str]) -> None:
    build(base)
    assert capfd.readouterr() == ("", "")


def test_dropout_is_set_everywhere(base: BaseModelFiles) -> None:
    model = build(base, dropout=0.25)
    rates = {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {0.25}


def test_a_saved_model_gives_the_same_logits(base: BaseModelFiles, tmp_path: Path) -> None:
    model = build(base)
    save_model(model, base, tmp_path / "out", max_length=32)
    saved = check_folder(tmp_path / "out", source="out")
    assert saved.labels == ("bad", "good")
    assert torch.equal(logits_of(build_classifier(saved, labels=saved.labels)), logits_of(model))


def test_other_labels_get_a_new_head_on_the_same_encoder(
    base: BaseModelFiles, tmp_path: Path
) -> None:
    model = build(base)
    save_model(model, base, tmp_path / "out")
    saved = check_folder(tmp_path / "out", source="out")
    for labels in (("no", "yes"), ("a", "b", "c")):
        other = build(saved, *labels)
        assert other.classifier.weight.shape[0] == len(labels)
        assert not torch.equal(other.classifier.weight[:2], model.classifier.weight)
        assert torch.equal(other.bert.pooler.dense.weight, model.bert.pooler.dense.weight)


def test_saving_twice_gives_the_same_bytes(base: BaseModelFiles, tmp_path: Path) -> None:
    def contents(name: str) -> dict[str, bytes]:
        save_model(build(base), base, tmp_path / name, max_length=32)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first = contents("first")
    assert first == contents("second")
    assert set(first) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert str(base.folder).encode() not in b"".join(first.values())


@pytest.mark.parametrize(("max_length", "stored"), [(32, 32), (None, 64)])
def test_the_saved_tokenizer_cuts_where_training_did(
    max_length: int | None, stored: int, base: BaseModelFiles, tmp_path: Path
) -> None:
    save_model(build(base), base, tmp_path, max_length=max_length)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    assert tokenizer["truncation"]["max_length"] == stored
    assert tokenizer["padding"] is None
    assert load_tokenizer(tmp_path).truncation is None


def test_weights_that_do_not_fit_the_configuration_are_refused(base: BaseModelFiles) -> None:
    path = base.folder / "model.safetensors"
    weights = load_file(path)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        build(check_folder(base.folder, source="x"))


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_every_architecture_is_built_with_all_its_positions(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModel

    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    if kind == "distilbert":
        names = ["dim", "hidden_dim", "n_layers", "n_heads"]
    sizes = dict(zip(names, (32, 64, 1, 2), strict=True))
    config = AutoConfig.for_model(
        kind, **sizes, vocab_size=200, max_position_embeddings=66, pad_token_id=1
    )
    AutoModel.from_config(config).save_pretrained(tmp_path / kind)
    (folder / "tokenizer.json").rename(tmp_path / kind / "tokenizer.json")
    base = check_folder(tmp_path / kind, source=kind)
    model = build(base, dropout=0.25)
    ids = torch.full((1, base.max_positions), 5)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 2)
    assert model.config._attn_implementation == "sdpa"
    rates = {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)}
    assert rates <= {0.25}
