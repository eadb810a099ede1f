"""The seeded split of a data set into training and evaluation rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def split_rows(
    texts: Iterable[str], *, num_evaluation: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the evaluation rows by a hash of each text.

    The choice depends on the texts and the seed alone, not on a random generator's version nor on
    the order of the rows; equal texts fall on the same side (but for the last of the held-out
    rows), and rows added later move few others.

    Returns:
        The training rows and the evaluation rows, both ascending.
    """
    key = hashlib.sha256(f"kovar split {seed}".encode()).digest()
    digests = b"".join(
        hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts
    )
    order = np.argsort(np.frombuffer(digests, dtype="<u8"), kind="stable").astype(np.int64)
    return np.sort(order[num_evaluation:]), np.sort(order[:num_evaluation])
