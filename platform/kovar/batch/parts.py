"""Which rows of the input go into which output file: a pure decision, the same at every start.

A part is a range of bytes (JSON Lines, CSV) or of row groups (Parquet) of one file. Ranges of bytes
end at the ends of rows, so parts can be read alone and together hold every row once.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kovar.errors import DataError, did_you_mean

FORMATS: Final = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
"""Suffix of a file → its format."""

_QUOTED: Final = re.compile(rb'"(?:[^"]++|"")*+"?')
_FIELDS: Final = {
    mark: re.compile(
        rb'(?:(?:"(?:[^"]++|"")*+"[^%b\n]*+|[^"%b\n][^%b\n]*+)?+[%b\n])*+' % ((mark,) * 4)
    )
    for mark in (b",", b"\t")
}
"""Delimiter → any number of whole fields."""


@dataclass(frozen=True)
class Part:
    """The rows of one output file.

    Args:
        number: place in the order of the input, from 0.
        path: the file that holds them.
        format: of that file.
        start: first byte, or first row group.
        stop: byte, or row group, after the last.
    """

    number: int
    path: Path
    format: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of the output file, without its suffix."""
        return f"part-{self.number:06d}"

    def __str__(self) -> str:
        unit = "row groups" if self.format == "parquet" else "bytes"
        return f"{self.path.name}, {unit} {self.start:,} to {self.stop:,}"


def find_inputs(path: Path, *, field: str = "input.source") -> list[Path]:
    """Return one file, or the files of a folder in the order of their names.

    Raises:
        DataError: nothing there, or files of an unknown or of several formats.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in FORMATS)
    elif path.is_file():
        files = [path]
    else:
        parent = path.parent
        known = sorted(other.name for other in parent.iterdir()) if parent.is_dir() else []
        raise DataError(
            "no such file or folder",
            field=field,
            got=str(path),
            hint=did_you_mean(path.name, known) or "a relative path starts at the spec's folder",
        )
    formats = {FORMATS.get(file.suffix.lower()) for file in files}
    if None in formats or len(formats) != 1:
        raise DataError(
            "files of one known format are needed",
            field=field,
            got=", ".join(sorted({file.suffix for file in files})) or "no such file in the folder",
            allowed=", ".join(FORMATS),
        )
    return files


def divide(files: Sequence[Path], *, part_size: int) -> list[Part]:
    """Divide files into parts; equal files and sizes give equal parts.

    Args:
        files: the inputs, in order.
        part_size: bytes of input per part, at least; the last part of a file may be smaller.

    Raises:
        DataError: a file is not of the format that its name says.
    """
    ranges = [
        (file, FORMATS[file.suffix.lower()], start, stop)
        for file in files
        for start, stop in _ranges(file, part_size)
    ]
    return [Part(number, *each) for number, each in enumerate(ranges)]


def _ranges(file: Path, part_size: int) -> Iterator[tuple[int, int]]:
    kind = FORMATS[file.suffix.lower()]
    if kind == "parquet":
        yield from _row_groups(file, part_size)
        return
    if file.stat().st_size == 0:
        return
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        match kind:
            case "jsonl":
                yield from _lines(data, part_size)
            case "csv":
                yield from _records(data, part_size, delimiter=b",")
            case "tsv":
                yield from _records(data, part_size, delimiter=b"\t")


def _row_groups(file: Path, part_size: int) -> Iterator[tuple[int, int]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as opened:
            groups = opened.metadata
            sizes = [groups.row_group(n).total_byte_size for n in range(groups.num_row_groups)]
    except (pa.ArrowInvalid, OSError) as problem:
        first = str(problem).splitlines()[0]
        raise DataError(f"cannot be read as Parquet: {first}", file=file) from None
    start, size = 0, 0
    for index, each in enumerate(sizes):
        size += each
        if size >= part_size or index == len(sizes) - 1:
            yield start, index + 1
            start, size = index + 1, 0


def _lines(data: mmap.mmap, part_size: int) -> Iterator[tuple[int, int]]:
    start, end = 0, len(data)
    while start < end:
        newline = data.find(b"\n", min(start + part_size, end) - 1)
        stop = end if newline < 0 else newline + 1
        yield start, stop
        start = stop


def _records(data: mmap.mmap, part_size: int, *, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Divide CSV after its header line; a line end inside quotes ends no row (RFC 4180)."""
    start, end = _row_end(data, delimiter, 0, 0), len(data)
    while start < end:
        stop = _row_end(data, delimiter, start, min(start + part_size, end) - 1)
        yield start, stop
        start = stop


def _row_end(data: mmap.mmap, delimiter: bytes, start: int, least: int) -> int:
    """Return where the first row ends that ends at `least` or later.

    Args:
        data: the file.
        delimiter: what stands between fields.
        start: a place where a row begins.
        least: place at or after `start`.
    """
    newline = data.find(b"\n", least)
    # Most fields end before that line end: they are skipped at the speed of the regular expression.
    whole = _FIELDS[delimiter].match(data, start, newline + 1 or len(data))
    start = whole.end() if whole else start
    while newline >= 0:
        quote = data.find(b'"', start, newline)
        if quote < 0:
            return newline + 1
        # Quotes have a meaning at the beginning of a field alone.
        before = data[quote - 1 : quote] if quote else b"\n"
        quoted = _QUOTED.match(data, quote) if before in (b"\n", b"\r", delimiter) else None
        start = quoted.end() if quoted else quote + 1
        if start > newline:
            newline = data.find(b"\n", start)
    return len(data)
