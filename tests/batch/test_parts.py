"""Parts hold every row of the input once, in order, wherever rows end."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kovar.batch.output import ANSWERS, OutputFolder
from kovar.batch.parts import Part, divide, find_inputs
from kovar.batch.reading import BATCH_ROWS, read_part
from kovar.errors import DataError

TEXTS = st.lists(
    st.text(alphabet=st.sampled_from('ab,"\n\r é'), min_size=1, max_size=12), min_size=1
)


def read_all(path: Path, part_size: int, columns=("text",)) -> list[list[str]]:
    """Return the texts of each part."""
    return [
        [text for table in read_part(part, columns) for text in table.column(0).to_pylist()]
        for part in divide([path], part_size=part_size)
    ]


@settings(deadline=None)
@given(TEXTS, st.integers(1, 40), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_csv_is_divided_between_rows_whatever_its_texts_hold(texts, part_size, quoting):
    with TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=quoting)
            writer.writerow(["id", "text"])
            writer.writerows([number, text] for number, text in enumerate(texts))
        parts = read_all(path, part_size)
        with path.open(newline="", encoding="utf-8") as file:
            expected = [row["text"] for row in csv.DictReader(file)]
    assert [text for part in parts for text in part] == expected
    assert all(parts)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 60), st.booleans())
def test_json_lines_are_divided_at_line_ends(texts, part_size, ends_with_newline):
    with TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        lines = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
        path.write_text(lines + "\n" * ends_with_newline, encoding="utf-8", newline="")
        parts = read_all(path, part_size)
    assert [text for part in parts for text in part] == texts


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("name", ANSWERS)
def test_rows_without_an_answer_are_counted_for_every_task(tmp_path, kind, name):
    answers = pa.table({name: pa.array([1.0, None])})
    part = Part(0, tmp_path, "jsonl", 0, 1)
    written = OutputFolder(tmp_path, kind).write(part, iter([answers]))
    assert (written.num_rows, written.num_bad) == (2, 1)


@pytest.mark.parametrize("part_size", [1, 400, 10**9])
def test_parquet_is_divided_between_row_groups(tmp_path, part_size):
    texts = [f"text {number}" for number in range(3 * BATCH_ROWS + 7)]
    parquet.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=900)
    parts = read_all(tmp_path / "a.parquet", part_size)
    assert [text for part in parts for text in part] == texts
    assert len(parts) == {1: 4, 400: 4, 10**9: 1}[part_size]


def test_a_quote_inside_a_field_has_no_meaning(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text\na 5" pipe\nanother 6" pipe\nshort\n')
    assert read_all(path, 1) == [['a 5" pipe'], ['another 6" pipe'], ["short"]]


def test_parts_of_a_folder_follow_the_names_of_its_files(tmp_path):
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text('{"text": "x"}\n')
    parts = divide(find_inputs(tmp_path), part_size=1 << 20)
    assert [(part.name, part.path.name) for part in parts] == [
        ("part-000000", "a.jsonl"),
        ("part-000001", "b.jsonl"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id\n1\n", r"input\.text: the input has no such column"),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"not valid JSON in the line at byte 14"),
        ("a.jsonl", "[1]\n", "no JSON object in the line at byte 0"),
        ("a.parquet", "no Parquet at all", "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_all(tmp_path / name, 1 << 20)


@pytest.mark.parametrize("names", [["a.csv", "b.jsonl"], ["a.xlsx"], []])
def test_files_of_one_known_format_are_needed(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match="one known format"):
        find_inputs(tmp_path)


def test_a_near_miss_of_a_name_is_offered(tmp_path):
    (tmp_path / "reviews.csv").write_text("text\n")
    with pytest.raises(DataError, match=r'did you mean "reviews\.csv"'):
        find_inputs(tmp_path / "reveiws.csv")
