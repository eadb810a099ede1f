"""Sources that are read piece by piece give what they give when read at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, feather, parquet

from kovar.data import DataSpec, Source, load_table, prepare_dataset, training_texts
from kovar.data.spool import Spool
from kovar.errors import DataError, SettingsError

Write = Callable[[str, str], Path]
LITTLE = 2048
ROWS = [
    {"text": f"row {n}, " + 'a "quoted"\nline ' * (n % 5), "label": n % 3, "id": n}
    for n in range(400)
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    match path.suffix:
        case ".csv":
            csv.write_csv(table, path)
        case ".parquet":
            parquet.write_table(table, path, row_group_size=150)
        case ".arrow":
            feather.write_feather(table, path, chunksize=150, compression="uncompressed")
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def load(path: Path, **options: Any) -> Source:
    folder = path.parent
    spec = DataSpec(source=path.name)
    return load_table(spec, cache_dir=folder / "cache", base_dir=folder, **options)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow", ".jsonl"])
def test_pieces_hold_the_rows_of_the_whole(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    write_rows(path, ROWS)
    whole, pieces = load(path, columns=["id"]), load(path, columns=["id"], memory_bytes=LITTLE)
    assert (whole.rows.in_memory, pieces.rows.in_memory) == (True, False)
    assert len(list(pieces.rows)) > 3
    assert pieces.table.equals(whole.table)
    assert (pieces.labels, pieces.description) == (("0", "1", "2"), whole.description)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("odd", ["one", 2.5, True])
def test_a_late_value_of_another_type_counts_as_in_the_whole(
    suffix: str, odd: object, tmp_path: Path
) -> None:
    path = tmp_path / f"rows{suffix}"
    late = [{**row, "label": str(row["label"])} for row in ROWS] if suffix == ".csv" else ROWS
    write_rows(path, late)
    line = f"late,{odd},9\n" if suffix == ".csv" else json.dumps({"text": "late", "label": odd})
    path.write_text(path.read_text() + line)
    outcomes = []
    for options in ({}, {"memory_bytes": LITTLE}):
        try:
            source = load(path, **options)
            outcomes.append((source.labels, source.content_digest))
        except DataError as error:
            outcomes.append((error.field, ""))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_fault_is_named_by_its_row_in_the_whole_source(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    write_rows(path, [{**row, "text": " " if n == 333 else "x" * 50} for n, row in enumerate(ROWS)])
    with pytest.raises(DataError, match="rows have no text: row 334") as caught:
        load(path, memory_bytes=LITTLE)
    assert caught.value.field == "data.text"


def test_a_broken_line_is_named_by_its_number(write: Write) -> None:
    path = write("rows.jsonl", '{"text": "a", "label": "x"}\n' * 300 + "{\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:301: not valid JSON"):
        load(path, memory_bytes=LITTLE)


def test_files_that_disagree_about_a_column_are_refused(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write_rows(tmp_path / "parts" / "a.parquet", ROWS)
    write_rows(tmp_path / "parts" / "b.parquet", [{**row, "label": "x"} for row in ROWS])
    with pytest.raises(DataError, match=r"label is string in b\.parquet and int64 before"):
        load(tmp_path / "parts", memory_bytes=LITTLE)


def test_the_tokenized_data_set_has_the_same_bytes(tokenizer_dir: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", ROWS)
    found = []
    for name, options in (("whole", {}), ("pieces", {"memory_bytes": LITTLE})):
        dataset = prepare_dataset(
            DataSpec(source="rows.parquet", evaluation=40, max_length=16),
            tokenizer_dir=tokenizer_dir,
            cache_dir=tmp_path / name,
            base_dir=tmp_path,
            **options,
        )
        files = {path.name: path.read_bytes() for path in dataset.folder.iterdir()}
        found.append((dataset.fingerprint, dataset.facts, files))
    assert found[0] == found[1]


def test_a_tokenizer_is_trained_on_texts_of_which_few_are_in_memory(tmp_path: Path) -> None:
    rows = [{"text": f"row {n} " + "x" * 500, "label": n % 3} for n in range(10_000)]
    write_rows(tmp_path / "rows.parquet", rows)
    spec = DataSpec(source="rows.parquet", evaluation=2000)
    places = {"cache_dir": tmp_path / "cache", "base_dir": tmp_path}
    texts = training_texts(spec, **places)
    tracemalloc.start()
    num_characters = sum(map(len, texts))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_characters > 8_000 * 500 > 2 * peak
    assert len(set(texts)) == 8_000


# Freed memory goes back at once, so that the peak tells what is in use.
FRUGAL = {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
PEAK = """
import sys
import tracemalloc
from pathlib import Path
from kovar.data import DataSpec, load_table
from kovar.data.dataset import held_out_rows
spec, folder = DataSpec(source=sys.argv[1]), Path(sys.argv[2])
source = load_table(spec, cache_dir=folder, base_dir=folder, memory_bytes=1 << 20)
held_out_rows(spec, source)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ten_times_the_rows_take_little_more_memory(tmp_path: Path) -> None:
    peaks = []
    for num_rows in (16_000, 160_000):
        texts = pa.array([f"{number:06}" * 80 for number in range(num_rows)])
        table = pa.table({"text": texts, "label": ["x", "y"] * (num_rows // 2)})
        parquet.write_table(table, tmp_path / f"{num_rows}.parquet", row_group_size=4_000)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, f"{num_rows}.parquet", tmp_path],
            env={**os.environ, **FRUGAL, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        )
        peaks.append(int(done.stdout) << 10)
    # In memory, the texts alone would be 69 MB more.
    assert peaks[1] - peaks[0] < 30 << 20


def test_a_spool_leaves_no_file_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", limit_bytes=10)
    for number in range(3):
        spool.append(pa.table({"n": [number] * 10}))
    spool.finish()
    assert not spool.in_memory
    assert [table["n"][0].as_py() for table in spool] == [0, 1, 2]
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_spool_that_cannot_be_written_points_at_the_cache_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError) as caught:
        Spool(tmp_path / "file", limit_bytes=0).append(pa.table({"n": [1]}))
    assert caught.value.field == "cache_dir"
