"""One text, or a pair of texts, and any number of labels a row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kovar.data.columns import Column, find_column, is_list, is_text, type_name
from kovar.data.layouts.layout import Content, EncodedRows, Encoding
from kovar.data.layouts.text import Texts
from kovar.data.rows import show_rows
from kovar.data.spec import DataSpec
from kovar.errors import DataError

_ALLOWED: Final = "lists of labels, or text that data.label_separator divides"


class TextLabels(Texts):
    """Columns `text` and `label`, a list of names; stored are the indexes of the labels, int32."""

    name = "text-labels"
    settings = frozenset({"text", "text_pair", "label", "label_separator"})
    min_labels = 2

    def columns(self, spec: DataSpec) -> tuple[Column, ...]:
        """Return the columns of the texts and of the labels."""
        label = Column(
            spec.label, "data.label", "list of labels", (list, str), _ALLOWED, is_class=True
        )
        return *self.text_columns(spec), label

    def read(self, table: pa.Table, spec: DataSpec) -> Content:
        """Return texts and lists of label names; integers are sorted as numbers."""
        *_, column = self.columns(spec)
        texts = self.read_texts(table, spec)
        names, numeric = _names(find_column(table, column.name, field=column.field), column, spec)
        found = {name for row in names for name in row}
        labels = sorted(found, key=int) if numeric else sorted(found)
        lists = pa.chunked_array([pa.array(names, pa.list_(pa.string()))])
        return Content(pa.table({**texts, "label": lists}), tuple(labels), numeric)

    def identity(self, spec: DataSpec, tokenizer_dir: Path | None = None) -> dict[str, Any]:
        """Return the name: lists are numbered in another way than single labels."""
        return {"layout": self.name, **super().identity(spec, tokenizer_dir)}

    def constants(self, encoding: Encoding) -> dict[str, int]:
        """Return the number of labels: collating makes a column of each."""
        return {"num_labels": len(encoding.labels)}

    def label_counts(self, table: pa.Table) -> Counter[str]:
        """Count rows by label; a row counts for each of its labels."""
        return Counter(pc.list_flatten(table.column("label")).to_pylist())

    def targets(self, spec: DataSpec) -> tuple[pa.Field, ...]:
        """Return the indexes of the labels."""
        return pa.field("label", pa.list_(pa.int32())), *self.text_targets(spec)

    def encode(self, table: pa.Table, encoding: Encoding) -> EncodedRows:
        """Tokenize the texts and number the labels."""
        found = self.encode_texts(table, encoding)
        index_of = {label: index for index, label in enumerate(encoding.labels)}
        rows = [[index_of[name] for name in row] for row in table.column("label").to_pylist()]
        indexes = pa.array(rows, pa.list_(pa.int32()))
        return replace(found, targets={**found.targets, "label": indexes})


def _names(found: pa.ChunkedArray, column: Column, spec: DataSpec) -> tuple[list[list[str]], bool]:
    """Return each row's labels, without repetition, and whether they are numbers."""
    kind = found.type
    if not (is_text(kind) or is_list(kind)):
        raise DataError(
            f"the column holds {type_name(kind)} (in rows 1, 2, 3, …), which are no lists",
            field=column.field,
            got=f"{column.name}: {kind}",
            allowed=column.allowed,
        )
    inner = None if is_text(kind) else kind.value_type
    numeric = inner is not None and bool(pa.types.is_integer(inner))
    if not (inner is None or numeric or pa.types.is_null(inner) or is_text(inner)):
        raise DataError(
            f"the lists hold {type_name(inner)}, which are not labels",
            field=column.field,
            got=f"{column.name}: {kind}",
            allowed="text or integers",
        )
    gaps = np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False)) + 1
    if len(gaps):
        raise DataError(
            f"{len(gaps):,} of {len(found):,} rows have no {column.what}: "
            f"{show_rows(gaps.tolist())}",
            field=column.field,
            got=f"{column.name}: null",
            allowed=f"a {column.what} in every row; it may be empty",
        )
    rows = [
        row.split(spec.label_separator) if isinstance(row, str) else row
        for row in found.to_pylist()
    ]
    blank = [n for n, row in enumerate(rows, 1) if any(name is None for name in row)]
    if blank:
        raise DataError(
            f"{show_rows(blank)}: a label is null", field=column.field, allowed=column.allowed
        )
    stripped = ([str(name).strip() for name in row] for row in rows)
    return [list(dict.fromkeys(filter(None, row))) for row in stripped], numeric
