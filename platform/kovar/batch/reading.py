"""The rows of one part, a batch at a time, so that memory does not grow with the input."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from kovar.batch.parts import Part
from kovar.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS: Final = 1024
_DELIMITERS: Final = {"csv": ",", "tsv": "\t"}


def read_part(part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the columns of a part's rows in their order, at most `BATCH_ROWS` rows at a time.

    Args:
        part: which rows.
        columns: the columns that are wanted, the texts first.

    Raises:
        DataError: a column is absent, or the file is not of its format.
    """
    import pyarrow as pa

    try:
        match part.format:
            case "parquet":
                yield from _parquet(part, columns)
            case "jsonl":
                yield from _json_lines(part, columns)
            case _:
                yield from _separated(part, columns)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as problem:
        first = str(problem).splitlines()[0][:200]
        raise DataError(f"{part}: cannot be read: {first}", field="input.source") from None


def check_columns(known: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a column that is not there.

    Args:
        known: columns of the input.
        wanted: columns of the spec, the texts first.

    Raises:
        DataError: naming the field of the spec.
    """
    for index, name in enumerate(wanted):
        if name not in known:
            raise DataError(
                "the input has no such column",
                field="input.keep" if index else "input.text",
                got=name,
                allowed=", ".join(known),
                hint=did_you_mean(name, list(known)),
            )


def _parquet(part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(part.path) as file:
        check_columns(file.schema_arrow.names, columns)
        groups = list(range(part.start, part.stop))
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=list(columns)):
            yield pa.Table.from_batches([batch]).select(list(columns))


def _json_lines(part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
    records: list[dict[str, Any]] = []
    with part.path.open("rb") as file:
        file.seek(part.start)
        while (at := file.tell()) < part.stop:
            line = file.readline()
            if line.strip():
                records.append(_record(line, part, at))
            if len(records) == BATCH_ROWS:
                yield _table(records, columns)
                records = []
    if records:
        yield _table(records, columns)


def _record(line: bytes, part: Part, at: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as problem:
        raise DataError(
            f"{part.path.name}: not valid JSON in the line at byte {at:,}: {problem}",
            field="input.source",
        ) from None
    if not isinstance(record, dict):
        raise DataError(
            f"{part.path.name}: no JSON object in the line at byte {at:,}", field="input.source"
        )
    return record


def _table(records: Sequence[dict[str, Any]], columns: Sequence[str]) -> pa.Table:
    """Build a table; what is no text becomes JSON, because lines may differ in their types."""
    import pyarrow as pa

    return pa.table(
        {
            name: pa.array([_as_text(record.get(name)) for record in records], pa.string())
            for name in columns
        }
    )


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _separated(part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
    import pyarrow as pa
    from pyarrow import csv

    names = header_of(part)
    check_columns(names, columns)
    with part.path.open("rb") as file:
        file.seek(part.start)
        content = file.read(part.stop - part.start)
    table = csv.read_csv(
        pa.BufferReader(content),
        read_options=csv.ReadOptions(column_names=names),
        parse_options=csv.ParseOptions(delimiter=_DELIMITERS[part.format], newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=list(columns),
            strings_can_be_null=False,
        ),
    )
    for start in range(0, table.num_rows, BATCH_ROWS):
        yield table.slice(start, BATCH_ROWS)


def header_of(part: Part) -> list[str]:
    """Return the names of the columns of the file that a part of CSV is of."""
    import csv

    with part.path.open("r", encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file, delimiter=_DELIMITERS[part.format]), [])
