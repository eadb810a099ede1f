"""What layouts of texts share: one text a row, or two, as one sequence of tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kovar.data.columns import Column, text_column
from kovar.data.digest import content_digest
from kovar.data.layouts.layout import EncodedRows, Encoding, Layout
from kovar.data.spec import DataSpec

SECOND = "second"
"""Stored for pairs: the place of the second text's first token, int32; past the end if the model
does not tell the two texts apart."""


class Texts(Layout):
    """A column `text`, and `text_pair` where the specification names one."""

    def text_columns(self, spec: DataSpec) -> tuple[Column, ...]:
        """Return the columns of the texts."""
        first = Column(spec.text, "data.text", "text", (str,))
        if spec.text_pair is None:
            return (first,)
        return first, Column(spec.text_pair, "data.text_pair", "second text", (str,))

    def tokenized(self, spec: DataSpec) -> tuple[str, ...]:
        """Return the columns of both texts."""
        return tuple(column.name for column in self.text_columns(spec))

    def read_texts(self, table: pa.Table, spec: DataSpec) -> dict[str, pa.ChunkedArray]:
        """Check the texts and return them by the layout's names."""
        columns = zip(self.texts(spec), self.text_columns(spec), strict=True)
        return {name: text_column(table, column) for name, column in columns}

    def texts(self, spec: DataSpec) -> tuple[str, ...]:
        """Return the names of the texts."""
        return ("text",) if spec.text_pair is None else ("text", "text_pair")

    def identity(self, spec: DataSpec, tokenizer_dir: Path | None = None) -> dict[str, Any]:
        """Return what the texts' digest leaves open: whether the model tells two texts apart."""
        if spec.text_pair is None or tokenizer_dir is None:
            return {}
        return {"segments": has_segments(tokenizer_dir)}

    def digest(self, pieces: Iterable[pa.Table]) -> str:
        """Return the digest of texts and labels."""
        pair = "text_pair" in next(iter(pieces)).column_names
        names = ("text", "text_pair", "label") if pair else ("text", "label")
        header = f"kovar {'/'.join(names)} 1"
        return content_digest(pieces, names, header=header)

    def keys(self, table: pa.Table) -> Iterable[str]:
        """Return the texts; of a pair, both."""
        texts: list[str] = table.column("text").to_pylist()
        if "text_pair" not in table.column_names:
            return texts
        pairs = zip(texts, table.column("text_pair").to_pylist(), strict=True)
        return ("\x1e".join(pair) for pair in pairs)

    def text_targets(self, spec: DataSpec) -> tuple[pa.Field, ...]:
        """Return what is stored of pairs."""
        return () if spec.text_pair is None else (pa.field(SECOND, pa.int32()),)

    def encode_texts(self, table: pa.Table, encoding: Encoding) -> EncodedRows:
        """Tokenize texts or pairs."""
        texts: Sequence[Any] = table.column("text").to_pylist()
        if is_pair := encoding.spec.text_pair is not None:
            texts = list(zip(texts, table.column("text_pair").to_pylist(), strict=True))
        found = encoding.tokenizer.encode_batch_fast(texts)
        targets = {}
        if is_pair:
            types = (one.type_ids for one in found)
            starts = _starts(types, told_apart=has_segments(encoding.tokenizer_dir))
            targets[SECOND] = pa.array(list(starts), pa.int32())
        return EncodedRows(
            [np.array(one.ids, dtype=np.int32) for one in found],
            targets,
            num_truncated=sum(bool(one.overflowing) for one in found),
        )


def _starts(types: Iterable[Sequence[int]], *, told_apart: bool) -> Iterator[int]:
    for of_row in types:
        yield of_row.index(1) if told_apart and 1 in of_row else len(of_row)


def has_segments(model_dir: Path) -> bool:
    """Return whether a model has different embeddings for the tokens of two texts."""
    path = model_dir / "config.json"
    return path.is_file() and json.loads(path.read_bytes()).get("type_vocab_size", 0) > 1


def segments(
    second: NDArray[np.int32], lengths: NDArray[np.int32], length: int
) -> NDArray[np.int64]:
    """Return `token_type_ids`: 1 for the tokens of second texts, shape (rows, length).

    Args:
        second: the place of the second text's first token, by row.
        lengths: tokens of each row.
        length: what the rows are padded to.
    """
    places = np.arange(length)
    of_second = (places >= second[:, None]) & (places < lengths[:, None])
    return of_second.astype(np.int64)
