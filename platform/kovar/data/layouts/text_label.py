"""One text, or a pair of texts, and one label a row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

import pyarrow as pa

from kovar.data.columns import Column, label_column
from kovar.data.layouts.layout import Content, EncodedRows, Encoding
from kovar.data.layouts.text import Texts
from kovar.data.spec import DataSpec

_LABELS: Final = (str, int, bool)
_LABELS_ALLOWED: Final = "text, integers, or true and false"


class TextLabel(Texts):
    """Columns `text` and `label`; stored is the index of the label, int64."""

    name = "text-label"
    settings = frozenset({"text", "text_pair", "label"})
    min_labels = 2

    def columns(self, spec: DataSpec) -> tuple[Column, ...]:
        """Return the columns of the texts and of the labels."""
        label = Column(spec.label, "data.label", "label", _LABELS, _LABELS_ALLOWED, is_class=True)
        return *self.text_columns(spec), label

    def read(self, table: pa.Table, spec: DataSpec) -> Content:
        """Return texts and label names; integers are sorted as numbers."""
        *_, label = self.columns(spec)
        texts = self.read_texts(table, spec)
        names, numeric = label_column(table, label)
        found = names.unique().to_pylist()
        labels = sorted(found, key=int) if numeric else sorted(found)
        return Content(pa.table({**texts, "label": names}), tuple(labels), numeric)

    def label_counts(self, table: pa.Table) -> Counter[str]:
        """Count rows by label."""
        return Counter(table.column("label").to_pylist())

    def targets(self, spec: DataSpec) -> tuple[pa.Field, ...]:
        """Return the label's index."""
        return pa.field("label", pa.int64()), *self.text_targets(spec)

    def encode(self, table: pa.Table, encoding: Encoding) -> EncodedRows:
        """Tokenize the texts and number the labels."""
        found = self.encode_texts(table, encoding)
        index_of = {label: index for index, label in enumerate(encoding.labels)}
        indexes = [index_of[name] for name in table.column("label").to_pylist()]
        return replace(found, targets={**found.targets, "label": pa.array(indexes, pa.int64())})
