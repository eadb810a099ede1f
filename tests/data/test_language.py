"""Rows of language models: what is learned of a conversation, packing, masks."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from kovar.data import DataSpec, load_tokenizer, prepare_dataset
from kovar.data.conversation import Dialect, parse_messages
from kovar.data.language import START, TARGET, collate_causal, collate_masked, pack
from kovar.errors import DataError, ModelError
from tiny import build_tiny_decoder, build_tiny_tokenizer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Bye."},
]
GENERATION = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }};{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return build_tiny_decoder(tmp_path_factory.mktemp("decoder"))


def dialect_of(folder, template):
    folder.mkdir()
    (folder / "tokenizer.json").write_text(
        (build_tiny_tokenizer(folder) / "tokenizer.json").read_text()
    )
    (folder / "chat_template.jinja").write_text(template)
    return Dialect.read(folder)


def learned(rendered):
    return [rendered.text[start:end] for start, end in rendered.spans]


def test_the_assistants_words_and_their_end_are_learned(decoder):
    rendered = Dialect.read(decoder).conversation(CHAT)
    assert learned(rendered) == ["Hello!<|im_end|>\n", "Bye.<|im_end|>\n"]
    assert rendered.text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_a_template_that_marks_the_assistants_words_is_believed(tmp_path):
    rendered = dialect_of(tmp_path / "model", GENERATION).conversation(CHAT)
    assert learned(rendered) == ["Hello!;", "Bye.;"]


def test_a_template_that_rewrites_the_past_is_refused(tmp_path):
    dialect = dialect_of(tmp_path / "model", "{{ messages|length }}{{ messages[-1].content }}")
    with pytest.raises(DataError, match="rewrites earlier messages"):
        dialect.conversation(CHAT)


def test_a_template_cannot_reach_python(tmp_path):
    dialect = dialect_of(tmp_path / "model", "{{ messages.__class__.__mro__ }}")
    with pytest.raises(DataError, match="refuses a conversation"):
        dialect.conversation(CHAT)


def test_a_model_without_a_template_says_what_to_do(tmp_path):
    dialect = Dialect.read(build_tiny_decoder(tmp_path / "model", template=None))
    with pytest.raises(ModelError, match="has no chat template"):
        dialect.conversation(CHAT)


@pytest.mark.parametrize(
    "value", ["{}", "[]", '[{"content": "a"}]', '[{"role": "user", "content": "a"}]', "no json"]
)
def test_what_is_no_conversation_is_refused(value):
    with pytest.raises(ValueError, match=r"message|role|content|assistant|Expecting"):
        parse_messages(value)


def test_windows_hold_every_token_and_begin_documents_where_they_are_cut():
    documents = [
        (
            np.arange(size, dtype=np.int32),
            np.array([TARGET | START] + [TARGET] * (size - 1), np.uint8),
        )
        for size in (5, 2, 6)
    ]
    windows = pack(documents, 4)
    assert [len(ids) for ids, _, _ in windows] == [4, 4, 4, 1]
    assert np.concatenate([ids for ids, _, _ in windows]).tolist() == [
        *range(5),
        *range(2),
        *range(6),
    ]
    assert [first for _, _, first in windows] == [0, 0, 2, 2]
    assert all(roles[0] & START for _, roles, _ in windows)


def rows_of(*rows, **constants):
    """A split of rows, each a pair of tokens and roles."""
    stored = {
        "input_ids": [np.array(ids) for ids, _ in rows],
        "roles": [np.array(r) for _, r in rows],
    }
    return SimpleNamespace(constants=constants, values=lambda name, row: stored[name][row])


def test_each_token_that_is_learned_is_predicted_from_the_one_before_it():
    split = rows_of(([7, 8, 9], [START, 0, TARGET]), ([5, 6], [START | TARGET, TARGET]))
    batch = collate_causal(split, np.arange(2), 4, pad_id=0)
    assert batch.inputs["input_ids"].tolist() == [[7, 8, 9, 0], [5, 6, 0, 0]]
    assert batch.inputs["target_positions"].tolist() == [1, 4]
    assert batch.targets.tolist() == [9, 6]
    assert batch.rows.tolist() == [0, 1]
    assert "position_ids" not in batch.inputs


def test_positions_start_again_with_each_document_and_none_predicts_the_next():
    split = rows_of(([1, 2, 3, 4, 5], [3, 1, 3, 1, 1]))
    batch = collate_causal(split, np.arange(1), 7, pad_id=0)
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0, 1]]
    assert batch.targets.tolist() == [2, 4, 5]


def test_masks_follow_the_epoch_and_the_row_and_nothing_else():
    ids = np.arange(10, 110)
    split = rows_of(*[(ids, np.full(100, TARGET))] * 3, mask_id=4, vocabulary=200)
    options = {"pad_id": 0, "seed": 1}
    together = collate_masked(split, np.arange(3), 100, **options)
    alone = collate_masked(split, np.array([2]), 100, **options)
    later = collate_masked(split, np.array([2]), 100, pad_id=0, seed=2)
    assert (together.inputs["input_ids"][2] == alone.inputs["input_ids"][0]).all()
    assert (together.inputs["input_ids"][1] != alone.inputs["input_ids"][0]).any()
    assert later.targets.tolist() != alone.targets.tolist()


def test_a_seventh_of_the_tokens_is_hidden_and_most_of_them_behind_the_mask():
    ids = np.arange(10, 20_010)
    split = rows_of((ids, np.full(20_000, TARGET)), mask_id=4, vocabulary=30_000)
    batch = collate_masked(split, np.arange(1), 20_000, pad_id=0, seed=0)
    seen = batch.inputs["input_ids"].reshape(-1)[batch.inputs["target_positions"]]
    assert len(batch.targets) / 20_000 == pytest.approx(0.15, abs=0.01)
    assert (seen == 4).mean() == pytest.approx(0.8, abs=0.02)
    assert (seen == batch.targets).mean() == pytest.approx(0.1, abs=0.02)


def test_special_tokens_stay_and_a_short_row_still_has_a_target():
    split = rows_of(([2, 9, 3], [0, TARGET, 0]), ([2, 3], [0, 0]), mask_id=4, vocabulary=10)
    batch = collate_masked(split, np.arange(2), 4, pad_id=0, seed=3)
    assert batch.targets.tolist() == [9]
    assert batch.inputs["target_positions"].tolist() == [1]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]


def prepared(rows, folder, decoder, layout="causal-text", **fields):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DataSpec(source="rows.jsonl", **{"evaluation": 1, "max_length": 64} | fields)
    places = {"tokenizer_dir": decoder, "cache_dir": folder / "cache", "base_dir": folder}
    return prepare_dataset(spec, layout=layout, **places)


def test_training_texts_are_packed_and_held_out_ones_stay_apart(decoder, tmp_path):
    rows = [{"text": f"{number} " * 20} for number in range(12)]
    dataset = prepared(rows, tmp_path, decoder, evaluation=2)
    train, held_out = dataset.open("train"), dataset.open("evaluation")
    assert set(train.lengths[:-1].tolist()) == {64}
    assert len(held_out) == len(held_out.texts) == 2
    assert train.lengths.sum() == dataset.facts["train"]["tokens"]


def test_only_the_completion_is_learned_and_it_ends(decoder, tmp_path):
    rows = [{"q": f"say {n}: ", "a": f"ok {n}"} for n in range(3)]
    dataset = prepared(rows, tmp_path, decoder, prompt="q", completion="a")
    train, tokenizer = dataset.open("train"), load_tokenizer(decoder)
    ids, roles = train.values("input_ids", 0), train.values("roles", 0)
    text = tokenizer.decode(ids[(roles & TARGET) != 0].tolist(), skip_special_tokens=False)
    assert text.startswith("ok ")
    assert text.endswith("<|endoftext|>")


def test_answers_beyond_the_longest_row_leave_nothing_to_learn(decoder, tmp_path):
    rows = [{"q": "x" * 80, "a": f"{n}"} for n in range(3)]
    with pytest.raises(DataError, match="has anything to learn"):
        prepared(rows, tmp_path, decoder, prompt="q", completion="a")


def test_another_template_makes_another_data_set(decoder, tmp_path):
    other = build_tiny_decoder(tmp_path / "other", template=GENERATION)
    rows = [{"messages": [*CHAT, {"role": "user", "content": str(n)}]} for n in range(3)]
    found = [prepared(rows, tmp_path, folder, messages="messages") for folder in (decoder, other)]
    assert found[0].fingerprint != found[1].fingerprint


def test_a_long_text_fills_several_rows_of_a_masked_data_set(tmp_path):
    folder = build_tiny_tokenizer(tmp_path / "encoder")
    rows = [{"text": "good film " * 40}, {"text": "bad plot"}, {"text": "fine"}]
    dataset = prepared(rows, tmp_path, folder, layout="masked-text", max_length=16)
    train = dataset.open("train")
    assert train.constants["vocabulary"] > train.constants["mask_id"] > 0
    assert all(train.values("roles", row)[0] == 0 for row in range(len(train)))
