"""Tables from csv, tsv, jsonl, json, parquet and arrow files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa

from kovar.data.columns import Column
from kovar.data.json_file import json_pieces, read_json
from kovar.data.separated import read_separated, separated_pieces
from kovar.errors import DataError, did_you_mean

MEMORY_BYTES: Final = 64 << 20
"""Sources up to this size are held in memory."""

PIECES: Final = 8
"""A piece is this part of what may be held in memory."""

PIECE_ROWS: Final = 65_536


def read_files(
    path: Path,
    wanted: Sequence[Column],
    *,
    field: str,
    columns: Sequence[str] = (),
    memory_bytes: int = MEMORY_BYTES,
) -> Iterator[pa.Table]:
    """Read one file, or all files of a folder in the order of their names.

    Small ones come as one table; of large ones, pieces are read as they are asked for.

    Args:
        path: file or folder.
        wanted: the columns of the layout; a mistake in one is described by row.
        field: the field of the specification that named the path, for messages.
        columns: further columns that are wanted.
        memory_bytes: files of more than this together are large.

    Raises:
        DataError: no such file, unknown format, or the file is not of the format that it claims.
    """
    files = _files(path, field)
    known = {column.name for column in wanted}
    more = [Column(name, field, "value") for name in dict.fromkeys(columns) if name not in known]
    columns_ = (*wanted, *more)
    if sum(_content_bytes(file) for file in files) <= memory_bytes:
        tables = [_read_file(file, columns_, field=field) for file in files]
        yield _whole(tables, columns_, path, field)
        return
    kinds: dict[str, pa.DataType] = {}
    for file in files:
        for number, piece in enumerate(_stream(file, columns_, memory_bytes // PIECES, field)):
            if number == 0:
                _refuse_other_types(piece, columns_, kinds, file, field)
            yield piece


def _files(path: Path, field: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise _missing(path, field)
    files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in READERS)
    if not files:
        raise DataError(
            "the folder holds no data file", file=path, field=field, allowed=", ".join(READERS)
        )
    return files


def _whole(tables: list[pa.Table], columns: Sequence[Column], path: Path, field: str) -> pa.Table:
    if len(tables) == 1:
        return tables[0]
    asked = dict.fromkeys(column.name for column in columns)
    names = [name for name in asked if all(name in t.column_names for t in tables)]
    try:
        return pa.concat_tables([table.select(names) for table in tables])
    except pa.ArrowInvalid as problem:
        raise _disagreement(_first_line(problem), path, field) from None


def _refuse_other_types(
    piece: pa.Table,
    columns: Sequence[Column],
    kinds: dict[str, pa.DataType],
    path: Path,
    field: str,
) -> None:
    """Hold a file's columns against those of the files before it."""
    for column in columns:
        if column.name in piece.column_names:
            kind = piece.schema.field(column.name).type
            if kinds.setdefault(column.name, kind) != kind:
                what = f"{column.name} is {kind} in {path.name} and {kinds[column.name]} before"
                raise _disagreement(what, path.parent, field)


def _disagreement(what: str, path: Path, field: str) -> DataError:
    return DataError(
        f"the files of the folder disagree about a column: {what}",
        file=path,
        field=field,
        hint="give the column the same type in every file",
    )


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
    with _explained(path, field):
        return _format(path, field).read(path, columns)


def _stream(
    path: Path, columns: Sequence[Column], piece_bytes: int, field: str
) -> Iterator[pa.Table]:
    with _explained(path, field):
        yield from _format(path, field).pieces(path, columns, piece_bytes)


def _format(path: Path, field: str) -> _Format:
    found = READERS.get(path.suffix.lower())
    if found is None:
        raise DataError(
            "unknown file format",
            field=field,
            got=path.name,
            allowed=", ".join(READERS),
            hint=did_you_mean(path.suffix.lower(), list(READERS)),
        )
    if path.stat().st_size == 0:
        raise DataError("the file is empty", file=path, field=field)
    return found


@contextmanager
def _explained(path: Path, field: str) -> Iterator[None]:
    """Say of a file that cannot be read what and where it is."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as problem:
        raise DataError(
            f"cannot be read as {path.suffix.lower()[1:]}: {_first_line(problem)}",
            file=path,
            field=field,
            hint="open the file and check that it is complete and of this format",
        ) from None


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__


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


def _parquet_pieces(path: Path, columns: Sequence[Column], piece_bytes: int) -> Iterator[pa.Table]:
    from pyarrow import parquet

    # Unbuffered, a whole row group would be read at once.
    with parquet.ParquetFile(path, buffer_size=min(piece_bytes, 1 << 20)) as file:
        asked = list(dict.fromkeys(column.name for column in columns))
        names = asked if set(asked) <= set(file.schema_arrow.names) else None
        row_bytes = _content_bytes(path) / max(1, file.metadata.num_rows)
        num_rows = max(1, min(PIECE_ROWS, int(piece_bytes / max(1.0, row_bytes))))
        for batch in file.iter_batches(num_rows, columns=names):
            yield pa.Table.from_batches([batch])


def _arrow_pieces(path: Path, columns: Sequence[Column], piece_bytes: int) -> Iterator[pa.Table]:
    """Yield the record batches as they were written, cut where they are large."""
    with pa.OSFile(str(path)) as source:
        for batch in _record_batches(source):
            num_rows = max(1, batch.num_rows * piece_bytes // max(piece_bytes, batch.nbytes))
            for first in range(0, batch.num_rows, num_rows):
                yield pa.Table.from_batches([batch.slice(first, num_rows)])


def _record_batches(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from pa.ipc.open_stream(source)
        return
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)


def _content_bytes(path: Path) -> int:
    """Return what a file takes in memory, about; Parquet is compressed on disk."""
    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        try:
            metadata = parquet.read_metadata(path)
        except (pa.ArrowInvalid, OSError):
            return 0  # Reading it says what is wrong.
        groups = range(metadata.num_row_groups)
        return sum(metadata.row_group(group).total_byte_size for group in groups)
    return path.stat().st_size


@dataclass(frozen=True, slots=True)
class _Format:
    """How files of one ending are read; some columns are wanted.

    Args:
        read: at once.
        pieces: some bytes at a time.
    """

    read: Callable[[Path, Sequence[Column]], pa.Table]
    pieces: Callable[[Path, Sequence[Column], int], Iterator[pa.Table]]


def _separated(delimiter: str) -> _Format:
    return _Format(
        lambda path, columns: read_separated(path, delimiter=delimiter),
        partial(separated_pieces, delimiter=delimiter),
    )


_JSON: Final = _Format(read_json, json_pieces)
_ARROW: Final = _Format(_read_arrow, _arrow_pieces)
READERS: Final[dict[str, _Format]] = {
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".json": _JSON,
    ".parquet": _Format(_read_parquet, _parquet_pieces),
    ".arrow": _ARROW,
    ".feather": _ARROW,
}
