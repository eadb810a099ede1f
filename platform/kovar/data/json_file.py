"""Tables from JSON Lines, or from one JSON array of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from kovar.data.columns import Column
from kovar.data.rows import rows_after, show_rows
from kovar.errors import DataError

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def read_json(path: Path, columns: Sequence[Column]) -> pa.Table:
    """Read JSON Lines, or one JSON array of objects."""
    from pyarrow import json as arrow_json

    is_array = is_json_array(path)
    if not is_array:
        options = arrow_json.ParseOptions(newlines_in_values=False)
        try:
            return arrow_json.read_json(path, parse_options=options)
        except pa.ArrowInvalid:
            # Arrow says "changed from string to number in row 0" of some block: read the slow way,
            # which either succeeds or knows the rows.
            pass
    records = _json_array(path) if is_array else _json_lines(path.read_bytes(), path)
    return _records_table(records, columns, path)


def is_json_array(path: Path) -> bool:
    """Return whether a file is one JSON array rather than a record a line."""
    with path.open("rb") as file:
        return file.read(1 << 16).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def json_pieces(path: Path, columns: Sequence[Column], piece_bytes: int) -> Iterator[pa.Table]:
    """Yield the records of a file of JSON Lines, about `piece_bytes` of lines at a time.

    A key that the records so far had is null where later records lack it.
    """
    seen: dict[str, pa.DataType] = {}
    num_lines = num_rows = 0
    with path.open("rb") as file:
        while lines := file.read(piece_bytes):
            lines += file.readline()
            with rows_after(num_rows):
                table = _piece(lines, columns, path, num_lines)
            for name in set(seen) - set(table.column_names):
                table = table.append_column(name, pa.nulls(table.num_rows, seen[name]))
            seen |= {field.name: field.type for field in table.schema}
            num_lines += lines.count(b"\n")
            num_rows += table.num_rows
            yield table


def _piece(lines: bytes, columns: Sequence[Column], path: Path, num_lines: int) -> pa.Table:
    from pyarrow import json as arrow_json

    try:
        return arrow_json.read_json(
            pa.BufferReader(lines),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=arrow_json.ParseOptions(newlines_in_values=False),
        )
    except pa.ArrowInvalid:
        return _records_table(_json_lines(lines, path, after=num_lines), columns, path)


def _records_table(records: list[Any], wanted: Sequence[Column], path: Path) -> pa.Table:
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


def _json_lines(lines: bytes, path: Path, *, after: int = 0) -> list[Any]:
    records = []
    for number, line in enumerate(lines.split(b"\n"), after + 1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError as problem:
            raise DataError(f"not valid JSON: {problem}", file=path, line=number) from None
    return records
