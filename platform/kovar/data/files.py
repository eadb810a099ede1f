"""Tables from csv, tsv, jsonl, json, parquet and arrow files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from kovar.data.columns import Column
from kovar.data.rows import show_rows
from kovar.errors import DataError, did_you_mean

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def read_files(
    path: Path, wanted: Sequence[Column], *, field: str, columns: Sequence[str] = ()
) -> pa.Table:
    """Read one file, or all files of a folder in the order of their names.

    Args:
        path: file or folder.
        wanted: the columns of the layout; a mistake in one is described by row.
        field: the field of the specification that named the path, for messages.
        columns: further columns that are wanted.

    Raises:
        DataError: no such file, unknown format, or the file is not of the format that it claims.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in READERS)
        if not files:
            raise DataError(
                "the folder holds no data file", file=path, field=field, allowed=", ".join(READERS)
            )
    elif path.is_file():
        files = [path]
    else:
        raise _missing(path, field)
    known = {column.name for column in wanted}
    more = [Column(name, field, "value") for name in dict.fromkeys(columns) if name not in known]
    tables = [_read_file(file, (*wanted, *more), field=field) for file in files]
    if len(tables) == 1:
        return tables[0]
    asked = dict.fromkeys(column.name for column in (*wanted, *more))
    names = [name for name in asked if all(name in t.column_names for t in tables)]
    try:
        return pa.concat_tables([table.select(names) for table in tables])
    except pa.ArrowInvalid as problem:
        raise DataError(
            f"the files of the folder disagree about a column: {_first_line(problem)}",
            file=path,
            field=field,
            hint="give the column the same type in every file",
        ) from None


def _missing(path: Path, field: str) -> DataError:
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    wanted = path.relative_to(parent).parts[0]
    near = did_you_mean(wanted, sorted(other.name for other in parent.iterdir()))
    return DataError(
        "no such file or folder",
        field=field,
        got=str(path),
        hint=near or f"looked in {parent}; a relative path starts at the specification's folder",
    )


def _read_file(path: Path, columns: Sequence[Column], *, field: str) -> pa.Table:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            "unknown file format",
            field=field,
            got=path.name,
            allowed=", ".join(READERS),
            hint=did_you_mean(path.suffix.lower(), list(READERS)),
        )
    if path.stat().st_size == 0:
        raise DataError("the file is empty", file=path, field=field)
    try:
        return reader(path, columns)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as problem:
        raise DataError(
            f"cannot be read as {path.suffix.lower()[1:]}: {_first_line(problem)}",
            file=path,
            field=field,
            hint="open the file and check that it is complete and of this format",
        ) from None


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__


def _read_separated(path: Path, *, delimiter: str) -> pa.Table:
    from pyarrow import csv

    options = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    return csv.read_csv(path, parse_options=options)


def _read_json(path: Path, columns: Sequence[Column]) -> pa.Table:
    """Read JSON Lines, or one JSON array of objects."""
    from pyarrow import json as arrow_json

    with path.open("rb") as file:
        is_array = file.read(1 << 16).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if not is_array:
        options = arrow_json.ParseOptions(newlines_in_values=False)
        try:
            return arrow_json.read_json(path, parse_options=options)
        except pa.ArrowInvalid:
            # Arrow says "changed from string to number in row 0" of some block: read the slow way,
            # which either succeeds or knows the rows.
            pass
    return _read_json_slowly(path, columns, is_array=is_array)


def _read_json_slowly(path: Path, wanted: Sequence[Column], *, is_array: bool) -> pa.Table:
    records = _json_array(path) if is_array else _json_lines(path)
    if not records:
        return pa.table({column.name: pa.array([], pa.string()) for column in wanted})
    strangers = [n for n, record in enumerate(records, 1) if not isinstance(record, dict)]
    if strangers:
        raise DataError(f"{show_rows(strangers)}: not a JSON object", file=path)
    present = {key for record in records for key in record}
    columns = {
        column.name: _json_column([record.get(column.name) for record in records], column, path)
        for column in wanted
        if column.name in present
    }
    return pa.table(columns | {key: pa.nulls(len(records)) for key in sorted(present - {*columns})})


def _json_column(values: list[Any], column: Column, path: Path) -> pa.Array:
    kinds = {type(value) for value in values} - {type(None)}
    allowed = column.kinds or tuple(kinds)
    if list in allowed and list in kinds:
        allowed = (list,)  # Lists and texts side by side have no common meaning.
    wrong = [n for n, v in enumerate(values, 1) if v is not None and type(v) not in allowed]
    _refuse_halves(values, file=path, field=column.field)
    if wrong and len(kinds) > 1:
        raise DataError(
            f"{show_rows(wrong)}: the {column.what} is not {column.allowed}",
            file=path,
            field=column.field,
            got=json.dumps(values[wrong[0] - 1]),
            allowed=column.allowed,
        )
    return _array(values, kinds if column.kinds else {str, object})


def _refuse_halves(values: list[Any], *, file: Path, field: str) -> None:
    """JSON can write half of a surrogate pair, which no UTF-8 text holds."""
    texts = [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    rows = [number for number, text in enumerate(texts, 1) if _SURROGATE.search(text)]
    if rows:
        raise DataError(
            f"{show_rows(rows)}: half of a surrogate pair is not text",
            file=file,
            field=field,
            got=json.dumps(values[rows[0] - 1]),
            allowed="text that UTF-8 can hold",
            hint="repair what wrote the file: it cut a character in two",
        )


def _array(values: list[Any], kinds: set[type]) -> pa.Array:
    if len(kinds) > 1:
        # Labels such as 1 and "one" side by side: their text is what names them.
        values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(values)


def _json_array(path: Path) -> list[Any]:
    try:
        records: list[Any] = json.loads(path.read_bytes())
    except ValueError as problem:
        raise DataError(f"not valid JSON: {problem}", file=path) from None
    return records


def _json_lines(path: Path) -> list[Any]:
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError as problem:
            raise DataError(f"not valid JSON: {problem}", file=path, line=number) from None
    return records


def _read_parquet(path: Path, columns: Sequence[Column]) -> pa.Table:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    asked = list(dict.fromkeys(column.name for column in columns))
    # With a column absent, all are read: the message lists what there is.
    return file.read(columns=asked if set(asked) <= set(file.schema_arrow.names) else None)


def _read_arrow(path: Path, columns: Sequence[Column]) -> pa.Table:
    """Read the Arrow file format, or the stream format that the datasets library writes."""
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


Reader = Callable[[Path, Sequence[Column]], pa.Table]
"""Reads a file, of which some columns are wanted."""
READERS: Final[dict[str, Reader]] = {
    ".csv": lambda path, columns: _read_separated(path, delimiter=","),
    ".tsv": lambda path, columns: _read_separated(path, delimiter="\t"),
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
}
