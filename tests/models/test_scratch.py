"""Models from scratch: a tokenizer trained on the texts, and drawn weights."""

from __future__ import annotations

from typing import Any

import pytest

from kovar.data import TokenizerSettings, load_tokenizer
from kovar.errors import ModelError
from kovar.models import ModelSpec, scratch_base

BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
LLAMA = BERT | {"model_type": "llama"}
TEXTS = ["这本书很好，我喜欢。", "质量不好，不喜欢 ABC！", "the film was good"]
CHARACTERS = TokenizerSettings(kind="characters", vocab_size=300, lowercase=True)


def build(tmp_path, config=BERT, tokenizer=CHARACTERS, **changes: Any):
    options = {"texts": lambda: TEXTS, "texts_digest": "a", "decoder": False, "seed": 0}
    return scratch_base(config, tokenizer, cache_dir=tmp_path, **(options | changes))


def test_each_chinese_character_is_a_token_and_small_letters_stand_for_capitals(tmp_path):
    tokenizer = load_tokenizer(build(tmp_path).folder)
    tokens = tokenizer.encode("这本好书 ABC 鑫").tokens
    assert tokens == ["[CLS]", *"这本好书abc", "[UNK]", "[SEP]"]


def test_a_model_from_scratch_is_made_once_and_the_same_on_every_machine(tmp_path):
    one = build(tmp_path / "one")
    assert build(tmp_path / "one", texts=None).digest == one.digest
    assert build(tmp_path / "two").digest == one.digest
    assert build(tmp_path / "one", seed=1).digest != one.digest
    assert (one.source, one.pad_id, one.max_positions) == ("scratch", 0, 64)


@pytest.mark.parametrize("decoder", [False, True])
def test_byte_pairs_do_not_depend_on_the_run_and_keep_every_text(decoder, tmp_path):
    settings = TokenizerSettings(kind="bytes", vocab_size=320)
    config = LLAMA if decoder else BERT
    found = [build(tmp_path / name, config, settings, decoder=decoder) for name in ("a", "b")]
    assert found[0].digest == found[1].digest
    tokenizer, text = load_tokenizer(found[0].folder), "THE film 鑫"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert "good" in "".join(tokenizer.encode(TEXTS[2]).tokens)


def test_a_setting_that_the_architecture_lacks_is_refused(tmp_path):
    with pytest.raises(ModelError, match="hidden_sizes") as caught:
        build(tmp_path, BERT | {"hidden_sizes": 3})
    assert "hidden_size" in str(caught.value.hint)


@pytest.mark.parametrize(
    "fields",
    [{"num_attention_heads": 3}, {"hidden_act": "nope"}, {"initializer_range": "wide"}],
)
def test_values_that_transformers_does_not_take_are_refused(fields, tmp_path):
    with pytest.raises(ModelError, match="refuses the configuration"):
        build(tmp_path, BERT | fields)


def test_heads_that_do_not_share_keys_and_values_equally_are_refused(tmp_path):
    settings = TokenizerSettings(kind="bytes", vocab_size=320)
    with pytest.raises(ModelError, match="num_key_value_heads: 4"):
        build(tmp_path, LLAMA | {"num_key_value_heads": 4}, settings, decoder=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "name a base"),
        ({"base": "x", "config": BERT}, "name a base"),
        ({"config": BERT}, "belong together"),
        ({"config": {"model_type": "brt"}, "tokenizer": CHARACTERS}, "model_type is 'brt'"),
        ({"config": BERT | {"vocab_size": 9}, "tokenizer": CHARACTERS}, "follows from"),
        ({"config": BERT | {"hidden_size": 0}, "tokenizer": CHARACTERS}, "hidden_size is 0"),
        ({"config": BERT | {"num_hidden_layers": None}, "tokenizer": CHARACTERS}, "is None"),
    ],
)
def test_a_model_is_a_base_or_from_scratch(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec(**fields)
