"""One text and one label a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from kovar.data.columns import Column, label_column, text_column
from kovar.data.digest import content_digest
from kovar.data.layouts.layout import Content, EncodedRows, Encoding, Layout
from kovar.data.spec import DataSpec

_LABELS: Final = (str, int, bool)
_LABELS_ALLOWED: Final = "text, integers, or true and false"


class TextLabel(Layout):
    """Columns `text` and `label`; stored is the index of the label, int64."""

    name = "text-label"
    settings = frozenset({"text", "label"})
    min_labels = 2

    def columns(self, spec: DataSpec) -> tuple[Column, ...]:
        """Return the columns of the texts and of the labels."""
        return (
            Column(spec.text, "data.text", "text", (str,)),
            Column(spec.label, "data.label", "label", _LABELS, _LABELS_ALLOWED, is_class=True),
        )

    def read(self, table: pa.Table, spec: DataSpec) -> Content:
        """Return texts and label names; integers are sorted as numbers."""
        text, label = self.columns(spec)
        texts = text_column(table, text)
        names, numeric = label_column(table, label)
        found = names.unique().to_pylist()
        labels = sorted(found, key=int) if numeric else sorted(found)
        return Content(pa.table({"text": texts, "label": names}), tuple(labels))

    def identity(self, spec: DataSpec, tokenizer_dir: Path | None = None) -> dict[str, Any]:
        """Return nothing: what these rows are is in their digest."""
        return {}

    def digest(self, table: pa.Table) -> str:
        """Return the digest of texts and labels."""
        return content_digest(table, ("text", "label"), header="kovar text/label 1")

    def label_counts(self, table: pa.Table) -> Counter[str]:
        """Count rows by label."""
        return Counter(table.column("label").to_pylist())

    def keys(self, table: pa.Table) -> Iterable[str]:
        """Return the texts."""
        texts: list[str] = table.column("text").to_pylist()
        return texts

    def targets(self, spec: DataSpec) -> tuple[pa.Field, ...]:
        """Return the label's index."""
        return (pa.field("label", pa.int64()),)

    def encode(self, table: pa.Table, encoding: Encoding) -> EncodedRows:
        """Tokenize the texts and number the labels."""
        found = encoding.tokenizer.encode_batch_fast(table.column("text").to_pylist())
        index_of = {label: index for index, label in enumerate(encoding.labels)}
        names = table.column("label").to_pylist()
        return EncodedRows(
            [np.array(one.ids, dtype=np.int32) for one in found],
            {"label": pa.array([index_of[name] for name in names], pa.int64())},
            num_truncated=sum(bool(one.overflowing) for one in found),
        )
