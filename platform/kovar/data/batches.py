"""Global batches: a pure function of the data set, the seed, the epoch and the token budget.

Batches are formed once for all workers, so the number of workers changes who computes a row, never
which rows form a step. Only raw generator bits and stable sorts are used: both are guaranteed to
stay the same across versions of numpy, which shuffles are not.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray


def _ladder() -> tuple[int, ...]:
    rungs = list(range(8, 65, 8))
    while rungs[-1] < 8192:
        octave = rungs[-1]
        rungs += [octave + octave * quarter // 4 for quarter in (1, 2, 3, 4)]
    return tuple(rungs)


LADDER: Final[tuple[int, ...]] = _ladder()
"""The padded lengths: multiples of 8 up to 64, then four to each doubling up to 8192."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one optimizer step.

    Args:
        rows: row numbers within the split, shorter rows first (roughly).
        length: padded length, a rung of the ladder (or the maximum length).
        longest: tokens of the longest row; enough where shapes may vary from step to step.
    """

    rows: NDArray[np.int64]
    length: int
    longest: int


def bucket_length(num_tokens: int, max_length: int) -> int:
    """Return the padded length of a row: the next rung of the ladder, at most `max_length`.

    Raises:
        ValueError: the row is empty or longer than `max_length`, or that is beyond the ladder.
    """
    if not 1 <= num_tokens <= max_length <= LADDER[-1]:
        raise ValueError(
            f"a row of {num_tokens} tokens does not fit 1 ≤ tokens ≤ {max_length} ≤ {LADDER[-1]}"
        )
    return min(LADDER[bisect_left(LADDER, num_tokens)], max_length)


def make_batches(
    lengths: NDArray[np.int32],
    *,
    fingerprint: str,
    seed: int,
    epoch: int,
    max_tokens: int,
    max_length: int,
) -> list[Batch]:
    """Form the batches of one epoch.

    Every row is in exactly one batch, and `len(batch.rows) * batch.length <= max_tokens`. Rows of
    like length share a batch. What does not fill a batch of its bucket moves into the next longer
    one, so few batches are small.

    Args:
        lengths: tokens of each row.
        fingerprint: the data set's.
        seed: the run's.
        epoch: counts from 0.
        max_tokens: budget of a batch over all workers, padding included.
        max_length: the longest sequence of the data set's specification.

    Raises:
        ValueError: a row is empty, longer than `max_length`, or does not fit into the budget.
    """
    num_rows = len(lengths)
    if num_rows == 0:
        return []
    bits = _raw_bits(f"{fingerprint} {seed} {epoch}", 2 * num_rows)
    tokens = lengths.astype(np.int64)
    rungs = _rungs(tokens, max_length)
    order = _order(tokens, rungs, bits[:num_rows])
    batches = list(_cut(order, tokens[order], rungs[order], max_tokens))
    shuffled = np.argsort(bits[num_rows : num_rows + len(batches)], kind="stable")
    return [batches[index] for index in shuffled]


def _raw_bits(name: str, count: int) -> NDArray[np.uint64]:
    key = int.from_bytes(hashlib.sha256(f"kovar batches 1 {name}".encode()).digest()[:16], "little")
    bits: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(count)
    return bits


def _rungs(lengths: NDArray[np.int64], max_length: int) -> NDArray[np.int64]:
    """Vectorized `bucket_length`."""
    for extreme in (lengths.min(), lengths.max()):
        bucket_length(int(extreme), max_length)
    ladder = np.array(LADDER, dtype=np.int64)
    rungs: NDArray[np.int64] = np.minimum(ladder[np.searchsorted(ladder, lengths)], max_length)
    return rungs


def _order(
    lengths: NDArray[np.int64], rungs: NDArray[np.int64], bits: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Sort by rung, then by almost the length, then at random.

    Exact lengths leave the least padding, but long rows, whose exact lengths are rare, would meet
    the same neighbours in every epoch: theirs are blurred by an eighth of the distance of rungs.
    """
    steps = np.diff(np.array((0, *LADDER), dtype=np.int64))
    blur = (steps[np.searchsorted(LADDER, lengths)] // 8).astype(np.uint64)
    almost = lengths + ((bits >> np.uint64(32)) % blur).astype(np.int64)
    return np.lexsort((bits, almost, rungs)).astype(np.int64)


def _cut(
    order: NDArray[np.int64],
    lengths: NDArray[np.int64],
    rungs: NDArray[np.int64],
    max_tokens: int,
) -> Iterator[Batch]:
    """Cut sorted rows into full batches; a bucket's leftovers join the next longer bucket."""
    start = 0
    for length in np.unique(rungs).tolist():
        capacity = max_tokens // length
        if capacity == 0:
            raise ValueError(f"a row of length {length} does not fit into {max_tokens} tokens")
        end = int(np.searchsorted(rungs, length, side="right"))
        is_last = end == len(order)
        while end - start >= capacity or (is_last and start < end):
            stop = min(start + capacity, end)
            # Leftovers that end up among themselves need no more than their own rung.
            yield Batch(order[start:stop], int(rungs[stop - 1]), int(lengths[start:stop].max()))
            start = stop


def deal(batch: Batch, rank: int, world_size: int) -> NDArray[np.int64]:
    """Return one rank's rows of a batch.

    Ranks share a batch like a hand of cards, so each has its part of the short and the long rows.
    Sizes differ by at most one; a rank has no row when the batch is smaller than the world.

    Raises:
        ValueError: no such rank.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of a world of {world_size}")
    return batch.rows[rank::world_size]


class Rows(Protocol):
    """What collating needs of a split."""

    def input_ids(self, row: int) -> NDArray[np.int32]:
        """Return the tokens of one row."""


def collate(
    split: Rows, rows: NDArray[np.int64], length: int, pad_id: int
) -> dict[str, NDArray[np.int64]]:
    """Pad rows on the right to one length.

    Returns:
        `input_ids` and `attention_mask`, each int64 of shape (rows, length).

    Raises:
        ValueError: a row is longer than `length`.
    """
    tokens = [split.input_ids(row) for row in rows.tolist()]
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    if len(rows) and lengths.max() > length:
        raise ValueError(f"a row of {lengths.max()} tokens does not fit into {length}")
    mask = np.arange(length) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    if len(rows):
        input_ids[mask] = np.concatenate(tokens)
    return {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
