"""What rows of each layout become, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from kovar.data import DataSpec, LayoutName, TokenizedDataset, prepare_dataset
from kovar.data.layouts import NO_TAG, NUM_WORDS, SECOND, WORD_TAGS
from kovar.errors import DataError
from tiny import build_tiny_encoder
from tiny_tasks import pair_rows, tagged_rows, topic_rows, write_lines

Prepare = Callable[..., TokenizedDataset]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def prepare(encoder: Path, tmp_path: Path) -> Prepare:
    def prepare(layout: LayoutName, rows: list[dict[str, Any]], **fields: Any) -> TokenizedDataset:
        source = fields.pop("source", None) or write_lines(tmp_path / "rows.jsonl", rows).name
        spec = DataSpec(**{"source": source, "evaluation": 24, "max_length": 32, **fields})
        places = {"cache_dir": tmp_path / "cache", "base_dir": tmp_path}
        return prepare_dataset(spec, layout=layout, tokenizer_dir=encoder, **places)

    return prepare


def test_lists_and_separated_texts_of_labels_are_the_same_rows(prepare: Prepare) -> None:
    rows = topic_rows(80)
    joined = [row | {"label": " | ".join(row["label"])} for row in rows]
    lists = prepare("text-labels", rows)
    texts = prepare("text-labels", joined, label_separator="|")
    assert lists.labels == ("acting", "good", "plot")
    assert lists.fingerprint == texts.fingerprint
    assert lists.facts["train"]["labels"] == texts.facts["train"]["labels"]


def test_the_labels_of_a_row_are_stored_as_indexes(prepare: Prepare) -> None:
    split = prepare("text-labels", topic_rows(80)).open("train")
    source = topic_rows(80)
    names = ("acting", "good", "plot")
    for row in range(len(split)):
        found = [names[index] for index in split.values("label", row)]
        assert found == source[split.rows[row]]["label"]
    assert split.constants == {"num_labels": 3}


def test_a_words_tag_stands_at_its_first_token(prepare: Prepare) -> None:
    dataset = prepare("tagged-words", tagged_rows(60))
    split, source = dataset.open("train"), tagged_rows(60)
    for row in range(len(split)):
        tags = split.values(WORD_TAGS, row)
        assert len(tags) == split.lengths[row]
        found = [dataset.labels[tag] for tag in tags if tag != NO_TAG]
        assert found == source[split.rows[row]]["tags"]
        assert split.column(NUM_WORDS)[row] == len(found)


def test_words_beyond_the_longest_sequence_lose_their_tags(prepare: Prepare) -> None:
    rows = [{"tokens": ["good"] * 20 + [str(n)], "tags": ["O"] * 20 + ["B-X"]} for n in range(60)]
    with_tags = rows[:40] + [{"tokens": ["dull", str(n)], "tags": ["B-X", "O"]} for n in range(60)]
    split = prepare("tagged-words", with_tags, max_length=16).open("train")
    assert split.column(NUM_WORDS).max() == 14


def test_words_and_tags_may_be_texts_with_spaces(prepare: Prepare) -> None:
    rows = tagged_rows(60)
    joined = [{name: " ".join(words) for name, words in row.items()} for row in rows]
    lists, texts = prepare("tagged-words", rows), prepare("tagged-words", joined)
    assert lists.fingerprint == texts.fingerprint


def test_the_place_of_the_second_text_is_stored(prepare: Prepare) -> None:
    split = prepare("text-label", pair_rows(80), text="first", text_pair="second").open("train")
    for row in range(len(split)):
        second = split.column(SECOND)[row]
        assert split.input_ids(row)[second - 1] == split.input_ids(row)[-1]  # [SEP] twice
        assert second < split.lengths[row] - 1


def test_a_pair_has_a_fingerprint_of_its_own(prepare: Prepare) -> None:
    alone = prepare("text-label", pair_rows(80), text="second")
    pair = prepare("text-label", pair_rows(80), text="first", text_pair="second")
    assert alone.fingerprint != pair.fingerprint


def test_parquet_lists_read_as_those_of_json(prepare: Prepare, tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(tagged_rows(60)), tmp_path / "rows.parquet")
    found = prepare("tagged-words", [], source="rows.parquet")
    assert found.fingerprint == prepare("tagged-words", tagged_rows(60)).fingerprint


@pytest.mark.parametrize(
    ("layout", "row", "field", "message"),
    [
        ("text-labels", {"text": "a", "label": None}, "data.label", "have no list of labels"),
        ("text-labels", {"text": "a", "label": "good"}, "data.label", "is not lists of labels"),
        ("text-labels", {"text": "", "label": []}, "data.text", "have no text"),
        ("tagged-words", {"tokens": ["a"], "tags": []}, "data.tags", "no list of tags"),
        ("tagged-words", {"tokens": ["a"], "tags": ["O", "O"]}, "data.tags", "as many tags"),
        ("tagged-words", {"tokens": [" "], "tags": ["O"]}, "data.tokens", "a gap in it"),
        ("tagged-words", {"tokens": ["a"], "tags": ["X"]}, "data.tags", "not a tag"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    layout: LayoutName, row: dict[str, Any], field: str, message: str, prepare: Prepare
) -> None:
    rows = topic_rows(40) if layout == "text-labels" else tagged_rows(40)
    with pytest.raises(DataError, match=message) as refused:
        prepare(layout, [*rows, row])
    assert refused.value.field == field


def test_a_tag_may_be_missing_in_the_held_out_rows_and_a_label_may_not(prepare: Prepare) -> None:
    rare = {"tokens": ["weak"], "tags": ["B-RARE"]}
    assert "B-RARE" in prepare("tagged-words", [*tagged_rows(60), rare], evaluation=1).labels
    with pytest.raises(DataError, match="'rare' is missing in the"):
        prepare("text-labels", [*topic_rows(60), {"text": "weak", "label": ["rare"]}])
