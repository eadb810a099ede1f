from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from kovar.data import DataSpec, Source, load_table
from kovar.errors import DataError

Write = Callable[[str, str], Path]
CONTENT_DIGEST = "19298854ebeb14a89141bc3fb6ad8ee81a941bb8ce1abae469e752dd0a00cdf3"
ROWS = [{"text": "a fine film", "label": "good"}, {"text": "a dull film, sadly", "label": "bad"}]


def load(folder: Path, source: str, **fields: Any) -> Source:
    spec = DataSpec(source=source, **fields)
    return load_table(spec, cache_dir=folder / "cache", base_dir=folder)


def load_error(folder: Path, source: str, **fields: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        load(folder, source, **fields)
    return caught.value


def as_lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_rows(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix in (".arrow", ".feather"):
        new = pa.ipc.new_stream if path.name.startswith("stream") else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif path.suffix == ".jsonl":
        path.write_text(as_lines(ROWS))
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        lines = [mark.join(f'"{value}"' for value in row.values()) for row in ROWS]
        path.write_text("\n".join([mark.join(ROWS[0]), *lines]))


FILES = ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.arrow", "stream.arrow", "a.feather"]


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_content(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / name)
    source = load(tmp_path, name)
    assert source.table.to_pylist() == ROWS
    assert source.labels == ("bad", "good")
    assert source.content_digest == CONTENT_DIGEST


def test_a_folder_is_read_in_the_order_of_its_names(write: Write, tmp_path: Path) -> None:
    write("folder/b.jsonl", as_lines(ROWS[1:]))
    write("folder/a.csv", "label,text\ngood,a fine film\n")
    write("folder/readme.txt", "not data")
    assert load(tmp_path, "folder").table.to_pylist() == ROWS


def test_an_absolute_path_needs_no_base(write: Write, tmp_path: Path) -> None:
    path = write("a.jsonl", as_lines(ROWS))
    assert load(tmp_path / "elsewhere", str(path)).num_rows == 2


def test_columns_are_chosen_by_name(write: Write, tmp_path: Path) -> None:
    write("a.csv", "review,stars,text\nfine,5,x\ndull,1,y\n")
    source = load(tmp_path, "a.csv", text="review", label="stars")
    assert source.table.to_pylist() == [
        {"text": "fine", "label": "5"},
        {"text": "dull", "label": "1"},
    ]


def test_integer_labels_are_sorted_as_numbers(write: Write, tmp_path: Path) -> None:
    write("a.csv", "text,label\na,10\nb,9\nc,-1\n")
    assert load(tmp_path, "a.csv").labels == ("-1", "9", "10")


def test_true_and_false_are_labels(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", as_lines([{"text": "a", "label": True}, {"text": "b", "label": False}]))
    assert load(tmp_path, "a.jsonl").labels == ("false", "true")


def test_labels_of_mixed_types_are_named_by_their_text(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", as_lines([{"text": "a", "label": 1}, {"text": "b", "label": "one"}]))
    assert load(tmp_path, "a.jsonl").labels == ("1", "one")


def test_a_text_may_hold_quotes_commas_and_new_lines(write: Write, tmp_path: Path) -> None:
    write("a.csv", 'text,label\n"two\nlines, ""quoted""",x\nb,y\n')
    assert load(tmp_path, "a.csv").table["text"][0].as_py() == 'two\nlines, "quoted"'


def test_the_description_is_plain_facts(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", as_lines(ROWS))
    source = load(tmp_path, "a.jsonl")
    assert source.description == {
        "source": "a.jsonl",
        "rows": 2,
        "labels": {"bad": 1, "good": 1},
        "content_sha256": source.content_digest,
    }


def test_the_digest_follows_every_value(write: Write, tmp_path: Path) -> None:
    variants = [
        [("ab", "x"), ("c", "y")],
        [("a", "x"), ("bc", "y")],
        [("c", "y"), ("ab", "x")],
        [("ab", "y"), ("c", "x")],
    ]
    digests = set()
    for rows in variants:
        write("a.jsonl", as_lines([{"text": t, "label": label} for t, label in rows]))
        digests.add(load(tmp_path, "a.jsonl").content_digest)
    assert len(digests) == len(variants)


def test_a_missing_file_is_told_with_the_nearest(write: Write, tmp_path: Path) -> None:
    write("data/reviews.csv", "text,label\n")
    error = load_error(tmp_path, "data/revews.csv")
    assert error.field == "data.source"
    assert 'did you mean "reviews.csv"?' in str(error)
    assert 'did you mean "data"?' in str(load_error(tmp_path, "dat/reviews.csv"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "the file is empty"),
        ("a.csv", "text,label\n", "the data set is empty"),
        ("a.jsonl", "\n", "the data set is empty"),
        ("a.json", "[]", "the data set is empty"),
        ("a.json", "[1, 2]", "rows 1, 2: not a JSON object"),
        ("a.json", '[{"text": "a"', "not valid JSON"),
        ("a.csv", "text,label\na,x\nb,y,z\n", "cannot be read as csv"),
        ("a.parquet", "PAR1 but no more", "cannot be read as parquet"),
        ("a.arrow", "ARROW1 but no more", "cannot be read as arrow"),
        ("a.xlsx", "text,label", "unknown file format"),
        ("folder/readme.txt", "hello", "the folder holds no data file"),
    ],
)
def test_unreadable_and_empty_sources_are_explained(
    name: str, text: str, message: str, write: Write, tmp_path: Path
) -> None:
    write(name, text)
    error = load_error(tmp_path, name.split("/")[0])
    assert message in str(error)


def test_a_broken_line_of_json_is_named(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", as_lines(ROWS) + '{"text": "torn')
    assert "a.jsonl:3: not valid JSON" in str(load_error(tmp_path, "a.jsonl"))


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\ncafé,x\nb,y\n".encode("latin-1"))
    error = load_error(tmp_path, "a.csv")
    assert (error.field, "not UTF-8" in str(error)) == ("data.text", True)


@pytest.mark.parametrize(("field", "near"), [("text", "txt"), ("label", "lable")])
def test_an_absent_column_is_told_with_the_nearest(
    field: str, near: str, write: Write, tmp_path: Path
) -> None:
    write("a.csv", {"text": "txt,label", "label": "text,lable"}[field] + "\na,x\nb,y\n")
    error = load_error(tmp_path, "a.csv")
    assert error.field == f"data.{field}"
    assert f'did you mean "{near}"?' in str(error)


@pytest.mark.parametrize("column", ["text", "label"])
def test_lines_of_json_in_another_encoding_are_listed(column: str, tmp_path: Path) -> None:
    row = {"text": "fine", "label": "good", column: "café"}
    data = (as_lines(ROWS) + json.dumps(row, ensure_ascii=False)).encode("latin-1")
    (tmp_path / "a.jsonl").write_bytes(data)
    error = load_error(tmp_path, "a.jsonl")
    assert error.field == f"data.{column}"
    assert "1 of 3 rows are not UTF-8 text: row 3" in str(error)


@pytest.mark.parametrize("column", ["text", "label"])
def test_half_of_a_surrogate_pair_is_refused(column: str, write: Write, tmp_path: Path) -> None:
    write("a.jsonl", as_lines([*ROWS, {"text": "fine", "label": "good", column: "\ud83d"}]))
    error = load_error(tmp_path, "a.jsonl")
    assert error.field == f"data.{column}"
    assert "row 3: half of a surrogate pair" in str(error)


def test_a_column_that_appears_twice_is_refused(write: Write, tmp_path: Path) -> None:
    write("a.csv", "text,label,text\na,x,b\n")
    assert "appears twice" in str(load_error(tmp_path, "a.csv"))


def test_rows_without_a_text_are_listed(write: Write, tmp_path: Path) -> None:
    rows = [{"text": None if n % 2 else "a", "label": str(n % 2)} for n in range(1, 14)]
    write("a.jsonl", as_lines(rows))
    error = load_error(tmp_path, "a.jsonl")
    assert error.field == "data.text"
    assert "7 of 13 rows have no text: rows 1, 3, 5, 7, 9, …" in str(error)


def test_rows_with_a_number_as_text_are_listed(write: Write, tmp_path: Path) -> None:
    write("a.jsonl", as_lines([*ROWS, {"text": 5, "label": "bad"}]))
    error = load_error(tmp_path, "a.jsonl")
    assert error.field == "data.text"
    assert "row 3: the text is not text" in str(error)


def test_a_column_of_numbers_is_no_text(write: Write, tmp_path: Path) -> None:
    write("a.csv", "text,label\n1,x\n2,y\n")
    error = load_error(tmp_path, "a.csv")
    assert error.field == "data.text"
    assert "the column holds numbers" in str(error)


def test_rows_without_a_label_are_listed(write: Write, tmp_path: Path) -> None:
    write("a.csv", 'text,label\na,x\nb,""\nc,y\n')
    error = load_error(tmp_path, "a.csv")
    assert error.field == "data.label"
    assert "1 of 3 rows have no label: row 2" in str(error)


def test_scores_are_no_labels(write: Write, tmp_path: Path) -> None:
    write("a.csv", "text,label\na,0.5\nb,1.5\n")
    error = load_error(tmp_path, "a.csv")
    assert error.field == "data.label"
    assert "which are not labels" in str(error)


def test_a_single_class_is_refused(write: Write, tmp_path: Path) -> None:
    write("a.csv", "text,label\na,x\nb,x\n")
    error = load_error(tmp_path, "a.csv")
    assert error.field == "data.label"
    assert "every row has the same label" in str(error)


def test_a_hub_name_of_another_form_is_refused(tmp_path: Path) -> None:
    error = load_error(tmp_path, "hub:not a name")
    assert "hub:owner/name" in str(error)


def test_an_unreachable_hub_is_explained(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from kovar.data import DataSpec, load_table; "
        "from kovar.errors import DataError\n"
        "try:\n load_table(DataSpec(source='hub:nobody/nothing@main#test'), "
        "cache_dir=Path('.'), base_dir=Path('.'))\n"
        "except DataError as error:\n print(error)"
    )
    environment = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("data.source: the hub data set cannot be loaded")
    assert "hub:nobody/nothing@main#test" in done.stdout


@pytest.mark.parametrize(
    ("name", "num_rows"),
    [("movie-reviews", 10605), ("amazon-reviews", 3708), ("tweets", 4200), ("editorials", 5190)],
)
def test_the_packaged_reviews_are_complete(name: str, num_rows: int, packages_cache: Path) -> None:
    spec = DataSpec(source=f"package:{name}")
    source = load_table(spec, cache_dir=packages_cache, base_dir=Path())
    assert source.num_rows == num_rows
    assert source.labels == ("negative", "positive")
    assert source.description["package"] == "vaderSentiment==3.3.2"
    assert not any("\r" in text or "\ufffd" in text for text in source.table["text"].to_pylist())
