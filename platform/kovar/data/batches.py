"""Global batches: a pure function of the data set, the seed, the epoch and the token budget.

Batches are formed once for all workers, so the number of workers changes who computes a row, never
which rows form a step. Only raw generator bits and stable sorts are used: both are guaranteed to
stay the same across versions of numpy, which shuffles are not.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, overload

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


class EpochBatches(Sequence[Batch]):
    """The batches of one epoch; each is made when it is asked for.

    Ten million rows take 40 MB here and no Python object each. Slices share the arrays.

    Args:
        order: row numbers; a batch is a stretch of them.
        lengths: tokens of each row of the split.
        stretches: where the batches lie in `order`.
        chosen: numbers of stretches, in the order of the batches.
    """

    def __init__(
        self,
        order: NDArray[np.int32],
        lengths: NDArray[np.int32],
        stretches: Stretches,
        chosen: NDArray[np.int64],
    ) -> None:
        self._order = order
        self._lengths = lengths
        self._stretches = stretches
        self._chosen = chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> EpochBatches: ...
    def __getitem__(self, index: int | slice) -> Batch | EpochBatches:
        if isinstance(index, slice):
            chosen = self._chosen[index]
            return EpochBatches(self._order, self._lengths, self._stretches, chosen)
        number = int(self._chosen[index])
        rows = self._order[self._stretches.of(number)].astype(np.int64)
        return Batch(rows, int(self._stretches.rungs[number]), int(self._lengths[rows].max()))


@dataclass(frozen=True, slots=True)
class Stretches:
    """Where batches begin and end among rows that are sorted by rung: the same in every epoch.

    Args:
        stops: one past the last row of each; the next one begins there.
        rungs: padded length of each.
    """

    stops: NDArray[np.int64]
    rungs: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.stops)

    def of(self, number: int) -> slice:
        """Return one stretch."""
        return slice(int(self.stops[number - 1]) if number else 0, int(self.stops[number]))


def make_batches(
    lengths: NDArray[np.int32],
    *,
    fingerprint: str,
    seed: int,
    epoch: int,
    max_tokens: int,
    max_length: int,
) -> EpochBatches:
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
    stretches = cut_rows(lengths, max_tokens=max_tokens, max_length=max_length)
    bits = _raw_bits(f"{fingerprint} {seed} {epoch}", len(lengths) + len(stretches))
    order = _order(lengths, bits[: len(lengths)], max_length)
    shuffled = np.argsort(bits[len(lengths) :], kind="stable")
    return EpochBatches(order, lengths, stretches, shuffled)


def cut_rows(lengths: NDArray[np.int32], *, max_tokens: int, max_length: int) -> Stretches:
    """Cut sorted rows into full batches; a bucket's leftovers join the next longer bucket.

    Args:
        lengths: tokens of each row, in any order.
        max_tokens: budget of a batch.
        max_length: the longest sequence of the data set's specification.

    Raises:
        ValueError: a row is empty, longer than `max_length`, or does not fit into the budget.
    """
    if len(lengths) == 0:
        return Stretches(np.empty(0, np.int64), np.empty(0, np.int64))
    counts = np.bincount(_rungs(lengths, max_length))
    numbers = np.flatnonzero(counts)
    padded = np.minimum(np.array(LADDER)[numbers], max_length).astype(np.int64)
    ends = np.cumsum(counts[numbers])
    parts: list[NDArray[np.int64]] = []
    start = 0
    for length, end in zip(padded.tolist(), ends.tolist(), strict=True):
        capacity = max_tokens // length
        if capacity == 0:
            raise ValueError(f"a row of length {length} does not fit into {max_tokens} tokens")
        num_full = (end - start) // capacity
        parts.append(start + capacity * np.arange(1, num_full + 1))
        start += capacity * num_full
    stops = np.concatenate([*parts, np.arange(ends[-1], ends[-1] + (start < ends[-1]))])
    # Leftovers that end up among themselves need no more than their own rung.
    return Stretches(stops, padded[np.searchsorted(ends, stops - 1, side="right")])


def _raw_bits(name: str, count: int) -> NDArray[np.uint64]:
    key = int.from_bytes(hashlib.sha256(f"kovar batches 1 {name}".encode()).digest()[:16], "little")
    bits: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(count)
    return bits


def _rungs(lengths: NDArray[np.int32], max_length: int) -> NDArray[np.uint8]:
    """Return the number of each row's rung on the ladder: a byte a row."""
    for extreme in (lengths.min(), lengths.max()):
        bucket_length(int(extreme), max_length)
    # Rungs beyond the maximum length are all cut to it, and only the first of them is used.
    table = np.searchsorted(LADDER, np.arange(max_length + 1)).astype(np.uint8)
    return table[lengths]


def _order(
    lengths: NDArray[np.int32], bits: NDArray[np.uint64], max_length: int
) -> NDArray[np.int32]:
    """Sort by rung, then by almost the length, then at random.

    Exact lengths leave the least padding, but long rows, whose exact lengths are rare, would meet
    the same neighbours in every epoch: theirs are blurred by an eighth of the distance of rungs.
    """
    order = np.empty(len(lengths), np.int32)
    if len(lengths) == 0:
        return order
    rungs = _rungs(lengths, max_length)
    blurs = np.diff(np.array((0, *LADDER), dtype=np.uint64)) // np.uint64(8)
    start = 0
    # One rung after the other, since sorting takes 40 bytes for each row that takes part.
    for rung in np.flatnonzero(np.bincount(rungs)).tolist():
        rows = np.flatnonzero(rungs == rung).astype(np.int32)
        random = bits[rows]
        almost = lengths[rows] + ((random >> np.uint64(32)) % blurs[rung]).astype(np.int32)
        order[start : start + len(rows)] = rows[np.lexsort((random, almost))]
        start += len(rows)
    return order


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
