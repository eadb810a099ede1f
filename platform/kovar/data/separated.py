"""Tables from files of separated values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from kovar.data.columns import Column, is_text

if TYPE_CHECKING:
    from pyarrow import csv

_NUMBER_OF_COLUMN: Final = re.compile(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error")
"""With one thread Arrow names the row, too."""


def read_separated(path: Path, *, delimiter: str) -> pa.Table:
    """Read a file at once."""
    from pyarrow import csv

    options = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    return csv.read_csv(path, parse_options=options)


def separated_pieces(
    path: Path, columns: Sequence[Column], piece_bytes: int, *, delimiter: str
) -> Iterator[pa.Table]:
    """Yield the rows of a file, about `piece_bytes` of it at a time."""
    types = _column_types(path, columns, piece_bytes, delimiter)
    with _open(path, piece_bytes, delimiter, types) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _open(
    path: Path, piece_bytes: int, delimiter: str, types: dict[str, pa.DataType]
) -> csv.CSVStreamingReader:
    from pyarrow import csv

    return csv.open_csv(
        path,
        read_options=csv.ReadOptions(block_size=piece_bytes),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types),
    )


def _column_types(
    path: Path, columns: Sequence[Column], piece_bytes: int, delimiter: str
) -> dict[str, pa.DataType]:
    """Return types that every row of the file agrees with.

    Arrow guesses them from the first piece. Any row can be read as text; another type is tried on
    the whole file, since the first letter among numbers may stand in its last row.
    """
    types: dict[str, pa.DataType] = {}
    while True:
        with _open(path, piece_bytes, delimiter, types) as reader:
            guessed = {field.name: field.type for field in reader.schema}
            # Nobody looks at the other columns: as text they cannot fail.
            wanted = {column.name for column in columns}
            types = {name: guessed[name] if name in wanted else pa.string() for name in guessed}
        if all(is_text(kind) for kind in types.values()):
            return types
        try:
            with _open(path, piece_bytes, delimiter, types) as reader:
                for _ in reader:
                    pass
            return types
        except pa.ArrowInvalid as problem:
            failed = _NUMBER_OF_COLUMN.search(str(problem))
            if failed is None:
                raise
            name = list(types)[int(failed[1])]
            types[name] = _wider(types[name])


def _wider(kind: pa.DataType) -> pa.DataType:
    return pa.float64() if pa.types.is_integer(kind) else pa.string()
