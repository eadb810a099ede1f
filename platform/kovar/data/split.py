"""The seeded split of a data set into training and evaluation rows."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE: Final = 65_536
IN_MEMORY_BYTES: Final = 8 << 20
HIGH_BITS: Final = 16


def split_rows(
    texts: Iterable[str], *, num_evaluation: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the evaluation rows as `held_out` does.

    Returns:
        The training rows and the evaluation rows, both ascending.
    """
    chosen = held_out(texts, num_evaluation=num_evaluation, seed=seed)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def held_out(texts: Iterable[str], *, num_evaluation: int, seed: int) -> NDArray[np.bool_]:
    """Say of each row whether it is an evaluation row: those of the lowest hashes are.

    The choice depends on the texts and the seed alone, not on a random generator's version nor on
    the order of the rows; equal texts fall on the same side (but for the last of the held-out
    rows), and rows added later move few others.

    Hashes are spooled and the highest of the chosen ones is found by counting, so a row takes a
    byte of memory.
    """
    key = hashlib.sha256(f"kovar split {seed}".encode()).digest()
    counts = np.zeros(1 << HIGH_BITS, dtype=np.int64)
    # Texts go by one at a time: thousands of them may be large.
    each = (hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
    with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as spool:
        while digests := b"".join(islice(each, ROWS_AT_ONCE)):
            high = _high_bits(np.frombuffer(digests, dtype="<u8"))
            counts += np.bincount(high, minlength=len(counts))
            spool.write(digests)
        return _lowest(spool, num_evaluation, counts)


def _lowest(spool: IO[bytes], number: int, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the rows of the `number` lowest hashes; of equal hashes the first rows."""
    below = np.cumsum(counts)
    last = int(np.searchsorted(below, number))
    chosen = np.zeros(int(below[-1]), dtype=np.bool_)
    rows, values = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for start, hashes in _hashes(spool):
        high = _high_bits(hashes)
        chosen[start : start + len(hashes)] = high < last
        at = np.flatnonzero(high == last)
        rows.append(at + start)
        values.append(hashes[at])
    # Only the bucket in which the border lies needs sorting.
    order = np.argsort(np.concatenate(values), kind="stable")
    missing = number - (int(below[last - 1]) if last else 0)
    chosen[np.concatenate(rows)[order[:missing]]] = True
    return chosen


def _hashes(spool: IO[bytes]) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    spool.seek(0)
    start = 0
    while part := spool.read(8 * ROWS_AT_ONCE):
        hashes: NDArray[np.uint64] = np.frombuffer(part, dtype="<u8")
        yield start, hashes
        start += len(hashes)


def _high_bits(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (hashes >> np.uint64(64 - HIGH_BITS)).astype(np.int64)
