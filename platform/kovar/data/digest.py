"""The digest of a table's values, whatever file format and chunks hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def content_digest(table: pa.Table, columns: Sequence[str], *, header: str) -> str:
    """Hash values rather than files: the same rows in CSV and in Parquet are the same content.

    Args:
        table: without nulls.
        columns: the columns that count, of strings, or of lists or structures of strings.
        header: names the meaning of the columns; part of the digest.
    """
    digest = hashlib.sha256(f"{header}\n".encode())
    for name in columns:
        _update(digest, table.column(name))
    return digest.hexdigest()


def _update(digest: hashlib._Hash, column: pa.ChunkedArray) -> None:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        for chunk in column.chunks:
            lengths = pc.list_value_length(chunk).to_numpy(zero_copy_only=False)
            digest.update(lengths.astype("<i8").tobytes())
        digest.update(b"\n")
        inner = [chunk.flatten() for chunk in column.chunks]
        _update(digest, pa.chunked_array(inner, type=column.type.value_type))
        return
    if pa.types.is_struct(column.type):
        for part in column.flatten():
            _update(digest, part)
        return
    for chunk in column.chunks:
        lengths = pc.binary_length(chunk).to_numpy(zero_copy_only=False)
        digest.update(lengths.astype("<i8").tobytes())
    digest.update(b"\n")
    for chunk in column.chunks:
        digest.update(_utf8(chunk))


def _utf8(chunk: pa.StringArray) -> memoryview | bytes:
    """Return the bytes of all strings of a chunk, one after the other, without copying."""
    _, offsets, data = chunk.buffers()
    if data is None or len(chunk) == 0:
        return b""
    ends = np.frombuffer(offsets, dtype=np.int32)
    return memoryview(data)[ends[chunk.offset] : ends[chunk.offset + len(chunk)]]
