"""Adapters beside a base that is in memory once."""

from __future__ import annotations

import json

import pytest
import torch

from kovar.errors import GoldenError, ModelError
from kovar.inference import AdapterBase, load_runtime, share_weights
from small_configs import ENCODERS
from tiny import build_tiny_encoder, build_tiny_tokenizer
from tiny_adapter import build_tiny_adapter
from tiny_version import LABELS, TEXTS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    base = build_tiny_encoder(folder / "base")
    build_tiny_adapter(folder / "lora", base, seed=1)
    build_tiny_adapter(folder / "dora", base, seed=2, dora=True)
    build_tiny_adapter(folder / "three", base, seed=3, labels=("bad", "fair", "good"))
    build_tiny_adapter(folder / "wrong", base, seed=4, shift=0.2)
    return folder


@pytest.fixture(scope="module")
def base(folders):
    return AdapterBase.load(folders / "base", precision="fp32")


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("name", ["lora", "dora", "three"])
def test_an_adapter_over_a_shared_base_answers_like_one_that_is_merged(folders, base, name, merge):
    beside = base.adapt(folders / name, merge=merge)
    merged = load_runtime(
        folders / name, runtime="torch", precision="fp32", base_folder=folders / "base"
    )
    batch = merged.tokenize(TEXTS)
    assert beside.labels == merged.labels
    torch.testing.assert_close(beside.scores(batch), merged.scores(batch), rtol=0, atol=1e-5)
    torch.testing.assert_close(beside.embed(batch), merged.embed(batch), rtol=0, atol=1e-5)
    weights = [beside.attribute(batch)[0].weights, merged.attribute(batch)[0].weights]
    torch.testing.assert_close(*map(torch.tensor, weights), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["albert", "distilbert", "modernbert"])
def test_a_base_of_any_architecture_is_shared(kind, tmp_path):
    from transformers import AutoConfig, AutoModel

    vocabulary = json.loads((build_tiny_tokenizer(tmp_path) / "tokenizer.json").read_text())
    sizes = ENCODERS[kind] | {"vocab_size": len(vocabulary["model"]["vocab"])}
    with torch.random.fork_rng(devices=[]):
        AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(tmp_path)
    layers = {"distilbert": ["q_lin"], "modernbert": ["Wqkv"]}.get(kind, ["query", "ffn"])
    folder = build_tiny_adapter(tmp_path / "adapter", tmp_path, layers=layers)
    base = AdapterBase.load(tmp_path, precision="fp32")
    assert base.adapt(folder).labels == LABELS  # it reproduces what the merged one answered


def test_the_weights_of_a_base_are_in_memory_once(folders, base):
    whole = dict(base.module.named_parameters())
    for name in ("lora", "three"):
        own = {
            key: parameter
            for key, parameter in base.adapt(folders / name).module.named_parameters()
            if parameter.data_ptr() != whole[key].data_ptr()
        }
        assert set(own) == {"classifier.weight", "classifier.bias"}


def test_layers_that_an_adapter_changes_are_its_own_where_it_is_merged(folders, base):
    whole = dict(base.module.named_parameters())
    own = {
        key
        for key, parameter in base.adapt(folders / "lora", merge=True).module.named_parameters()
        if parameter.data_ptr() != whole[key].data_ptr()
    }
    assert own == {
        *("classifier.weight", "classifier.bias"),
        *(key for key in whole if key.endswith(("query.weight", "dense.weight"))),
    }


def test_a_merged_adapter_shares_what_it_does_not_change_with_the_base(folders, base):
    merged = load_runtime(
        folders / "lora", runtime="torch", precision="fp32", base_folder=folders / "base"
    )
    assert share_weights([merged], base=base.module) > 0
    embeddings = [
        one.get_parameter("bert.embeddings.word_embeddings.weight").data_ptr()
        for one in (merged.module, base.module)
    ]
    assert embeddings[0] == embeddings[1]


def test_a_base_in_bf16_explains_answers_in_fp32(folders):
    base = AdapterBase.load(folders / "base", precision="bf16")
    runtime = base.adapt(folders / "lora")
    explained = runtime.attribute(runtime.tokenize(TEXTS[:1]))[0]
    assert runtime.precision == "bf16"
    assert explained.prediction.label == runtime.predict(TEXTS[:1])[0].label


def test_an_adapter_that_answers_otherwise_than_evaluated_is_refused(folders, base):
    with pytest.raises(GoldenError):
        base.adapt(folders / "wrong")


def test_an_adapter_of_another_base_is_refused(folders, base, tmp_path):
    from transformers import BertConfig, BertModel

    other = tmp_path / "other"
    build_tiny_encoder(other)
    config = BertConfig.from_pretrained(other, hidden_size=64, intermediate_size=32)
    BertModel(config).save_pretrained(other)
    build_tiny_adapter(tmp_path / "adapter", other)
    with pytest.raises(ModelError, match="does not fit its base"):
        base.adapt(tmp_path / "adapter")
