"""The digest of a table's values, whatever file format, pieces and chunks hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_Chunks = Callable[[], Iterator[pa.Array]]
"""Begins to read a column again: all lengths are hashed before the first value."""


def content_digest(pieces: Iterable[pa.Table], columns: Sequence[str], *, header: str) -> str:
    """Hash values rather than files: the same rows in CSV and in Parquet are the same content.

    Args:
        pieces: the rows in order, without nulls; iterated several times.
        columns: the columns that count, of strings, or of lists or structures of strings.
        header: names the meaning of the columns; part of the digest.
    """
    digest = hashlib.sha256(f"{header}\n".encode())
    for name in columns:
        _update(digest, partial(_column, pieces, name))
    return digest.hexdigest()


def _column(pieces: Iterable[pa.Table], name: str) -> Iterator[pa.Array]:
    return (chunk for piece in pieces for chunk in piece.column(name).chunks)


def _field(chunks: _Chunks, index: int) -> Iterator[pa.Array]:
    return (chunk.flatten()[index] for chunk in chunks())


def _values(chunks: _Chunks) -> Iterator[pa.Array]:
    return (chunk.flatten() for chunk in chunks())


def _update(digest: hashlib._Hash, chunks: _Chunks) -> None:
    kind = next(chunks()).type
    if pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            _update(digest, partial(_field, chunks, index))
        return
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    length_of = pc.list_value_length if is_list else pc.binary_length
    for chunk in chunks():
        digest.update(length_of(chunk).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    digest.update(b"\n")
    if is_list:
        _update(digest, partial(_values, chunks))
        return
    for chunk in chunks():
        digest.update(_utf8(chunk))


def _utf8(chunk: pa.StringArray) -> memoryview | bytes:
    """Return the bytes of all strings of a chunk, one after the other, without copying."""
    _, offsets, data = chunk.buffers()
    if data is None or len(chunk) == 0:
        return b""
    ends = np.frombuffer(offsets, dtype=np.int32)
    return memoryview(data)[ends[chunk.offset] : ends[chunk.offset + len(chunk)]]
