"""Columns that hold what their names promise: present once, without gaps, of the right type."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kovar.data.rows import show_rows
from kovar.errors import DataError, did_you_mean


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a layout wants of a source.

    Args:
        name: in the file.
        field: the field of the specification that names it.
        what: what one value is, for messages: `text`, `label`.
        kinds: types that a JSON value may have; any where none is named.
        allowed: these types in words.
        is_class: whether numbers stand for classes that a hub data set names.
    """

    name: str
    field: str
    what: str
    kinds: tuple[type, ...] = ()
    allowed: str = "text"
    is_class: bool = False


def find_column(table: pa.Table, name: str, *, field: str) -> pa.ChunkedArray:
    """Return a column, dictionaries resolved.

    Raises:
        DataError: it is absent or appears twice, or its texts are not UTF-8.
    """
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
    if is_text(column.type):
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


def is_text(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are texts."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are lists."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def text_column(table: pa.Table, column: Column) -> pa.ChunkedArray:
    """Return a column of texts as strings.

    Raises:
        DataError: it is absent, has gaps, or holds something else.
    """
    found = find_column(table, column.name, field=column.field)
    refuse_gaps(found, column)
    if not is_text(found.type):
        raise DataError(
            f"the column holds {type_name(found.type)} (in rows 1, 2, 3, …), not text",
            field=column.field,
            got=f"{column.name}: {found.type}",
            allowed="text in UTF-8",
            hint=f"set {column.field} to the column that holds the texts",
        )
    return found.cast(pa.string())


def label_column(table: pa.Table, column: Column) -> tuple[pa.ChunkedArray, bool]:
    """Return a column of labels as names, and whether they are numbers.

    Raises:
        DataError: it is absent, has gaps, or holds what names no class.
    """
    found = find_column(table, column.name, field=column.field)
    refuse_gaps(found, column)
    kind = found.type
    numeric = bool(pa.types.is_integer(kind))
    if not (numeric or pa.types.is_boolean(kind) or is_text(kind)):
        raise DataError(
            f"the column holds {type_name(kind)} (in rows 1, 2, 3, …), which are not labels",
            field=column.field,
            got=f"{column.name}: {kind}",
            allowed="text, integers, or true and false",
            hint="turn scores into named classes first",
        )
    return found.cast(pa.string()), numeric


def refuse_gaps(found: pa.ChunkedArray, column: Column) -> None:
    """Refuse nulls and blank texts.

    Raises:
        DataError: naming the rows.
    """
    missing = found.is_null()
    if is_text(found.type):
        # A CSV file writes a missing value as an empty one.
        blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(found.cast(pa.string()), "")), "")
        missing = pc.or_(missing, blank)
    rows = np.flatnonzero(missing.to_numpy(zero_copy_only=False)) + 1
    if len(rows):
        raise DataError(
            f"{len(rows):,} of {len(found):,} rows have no {column.what}: "
            f"{show_rows(rows.tolist())}",
            field=column.field,
            got=f"{column.name}: null or blank",
            allowed=f"a {column.what} in every row",
            hint="fill these rows or remove them",
        )


def type_name(kind: pa.DataType) -> str:
    """Name an Arrow type in plain words."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numbers"
    if pa.types.is_boolean(kind):
        return "true and false"
    if pa.types.is_temporal(kind):
        return "dates or times"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes that are not UTF-8 text"
    return f"values of type {kind}"
