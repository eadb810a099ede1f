"""Which waiting texts run together next: a pure decision, without threads and without a clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import Field

from kovar.config import Config

# One batch has a fixed cost, measured on one x86 core as that of 30 tokens in fp32 and of 100 in
# bf16 on matrix units: padding below it is cheaper than another batch, and padding above is not.
MAX_PADDING_TOKENS = 64

PayloadT = TypeVar("PayloadT")


class BatchLimits(Config):
    """What one batch may hold."""

    max_rows: int = Field(default=64, ge=1, description="texts in one batch")
    max_tokens: int = Field(
        default=2048, ge=1, description="padded tokens in one batch: rows × longest row"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Item(Generic[PayloadT]):
    """One text that waits.

    Attributes:
        length: number of tokens.
        deadline: moment, on the clock of `Batcher.take`, from which nobody wants the answer.
        payload: what the caller needs to run and answer it.
    """

    length: int
    deadline: float
    payload: PayloadT


@dataclass(frozen=True, slots=True)
class Taken(Generic[PayloadT]):
    """The decision: what to run now, and what to refuse because its deadline has passed."""

    batch: list[Item[PayloadT]]
    expired: list[Item[PayloadT]]


class Batcher(Generic[PayloadT]):
    """A queue of texts that gives out batches.

    Work-conserving: `take` never holds anything back to wait for company. The oldest text is part
    of the next batch, so a text waits for at most as many batches as there are older texts.

    Args:
        limits: what one batch may hold.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self._queue: list[Item[PayloadT]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, items: Sequence[Item[PayloadT]]) -> None:
        """Queue texts, the oldest first.

        Raises:
            ValueError: a text is longer than a whole batch may be; nothing is queued.
        """
        longest = max((item.length for item in items), default=0)
        if longest > self.limits.max_tokens:
            raise ValueError(f"{longest} tokens in one row, max_tokens is {self.limits.max_tokens}")
        self._queue.extend(items)

    def remove(self, items: Collection[Item[PayloadT]]) -> None:
        """Forget texts that nobody waits for any more; ignore those that were taken."""
        gone = set(items)
        self._queue = [item for item in self._queue if item not in gone]

    def take(self, now: float) -> Taken[PayloadT]:
        """Decide what runs now; empty only when no live text waits."""
        expired = [item for item in self._queue if item.deadline <= now]
        live = [item for item in self._queue if item.deadline > now] if expired else self._queue
        batch = _select(live, self.limits) if live else []
        gone = set(batch)
        self._queue = [item for item in live if item not in gone]
        return Taken(batch, expired)


def _select(waiting: Sequence[Item[PayloadT]], limits: BatchLimits) -> list[Item[PayloadT]]:
    """Return the oldest text and the texts nearest to it in length that fit beside it."""
    oldest = waiting[0]
    batch, longest, num_tokens = [oldest], oldest.length, oldest.length
    nearest = sorted(waiting[1:], key=lambda item: abs(item.length - oldest.length))
    for item in nearest:
        if len(batch) == limits.max_rows:
            break
        padded = (len(batch) + 1) * max(longest, item.length)
        padding = padded - num_tokens - item.length
        if padded <= limits.max_tokens and padding <= MAX_PADDING_TOKENS:
            batch.append(item)
            longest = max(longest, item.length)
            num_tokens += item.length
    return batch
