"""Which waiting texts run together next: a pure decision, without threads and without a clock."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pydantic import Field

from kovar.config import Config

CPU_PADDING_TOKENS: Final = 64
"""Padding of one batch that is cheaper than another batch, on a CPU.

One batch has a fixed cost, measured on one x86 core as that of 30 tokens in fp32 and of 100 in
bf16 on matrix units. A GPU's is that of thousands of tokens.
"""

PayloadT = TypeVar("PayloadT")


class BatchLimits(Config):
    """What one batch may hold, and how many run at a time."""

    max_rows: int = Field(default=64, ge=1, description="texts in one batch")
    max_tokens: int = Field(
        default=2048, ge=1, description="padded tokens in one batch: rows × longest row"
    )
    max_padding_tokens: int | None = Field(
        default=None,
        ge=0,
        description="of these, tokens that may be padding; if absent 64, on a GPU max_tokens",
    )
    parallel: int = Field(
        default=1,
        ge=1,
        le=256,
        description="batches that run at a time on a CPU, each on its share of num_threads",
    )

    def on(self, device: str) -> BatchLimits:
        """Return the limits with what is absent filled in for a kind of chip."""
        if self.max_padding_tokens is not None:
            return self
        padding = CPU_PADDING_TOKENS if device == "cpu" else self.max_tokens
        return self.model_copy(update={"max_padding_tokens": padding})


@dataclass(frozen=True, slots=True, eq=False)
class Item(Generic[PayloadT]):
    """One text that waits.

    Attributes:
        length: number of tokens.
        deadline: moment, on the clock of `Batcher.take`, from which nobody wants the answer.
        payload: what the caller needs to run and answer it.
        group: what runs it; texts of different groups never share a batch.
    """

    length: int
    deadline: float
    payload: PayloadT
    group: Hashable = None


@dataclass(frozen=True, slots=True)
class Taken(Generic[PayloadT]):
    """The decision: what to run now, and what to refuse because its deadline has passed."""

    batch: list[Item[PayloadT]]
    expired: list[Item[PayloadT]]


class Batcher(Generic[PayloadT]):
    """A queue of texts that gives out batches.

    Work-conserving: `take` never holds anything back to wait for company. The oldest text is part
    of every batch, so a text waits for at most as many batches as there are older texts.

    Args:
        limits: what one batch may hold.
        length_step: rows are padded to a multiple of this, which counts as their length.
    """

    def __init__(self, limits: BatchLimits, *, length_step: int = 1) -> None:
        self.limits = limits.on("cpu")
        self.length_step = length_step
        # In order of arrival; a dict, since a client that goes away takes its texts out anywhere.
        self._queue: dict[Item[PayloadT], None] = {}
        self._num_tokens = 0

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Item[PayloadT]]:
        return iter(self._queue)

    @property
    def num_tokens(self) -> int:
        """Tokens that wait."""
        return self._num_tokens

    def add(self, items: Sequence[Item[PayloadT]]) -> None:
        """Queue texts, the oldest first.

        Raises:
            ValueError: a text is longer than a whole batch may be; nothing is queued.
        """
        longest = max((item.length for item in items), default=0)
        if longest > self.limits.max_tokens:
            raise ValueError(f"{longest} tokens in one row, max_tokens is {self.limits.max_tokens}")
        self._queue.update(dict.fromkeys(items))
        self._num_tokens += sum(item.length for item in items)

    def remove(self, items: Collection[Item[PayloadT]]) -> None:
        """Forget texts that nobody waits for any more; ignore those that were taken."""
        for item in items:
            if item in self._queue:
                del self._queue[item]
                self._num_tokens -= item.length

    def clear(self) -> list[Item[PayloadT]]:
        """Forget all texts that wait; return them."""
        forgotten = list(self._queue)
        self.remove(forgotten)
        return forgotten

    def take(self, now: float) -> Taken[PayloadT]:
        """Decide what runs now; empty only when no live text waits."""
        expired = [item for item in self._queue if item.deadline <= now]
        self.remove(expired)
        batch = self._select(list(self._queue)) if self._queue else []
        self.remove(batch)
        return Taken(batch, expired)

    def padded(self, length: int) -> int:
        """Return the tokens that a row takes beside others of its length."""
        return -(-length // self.length_step) * self.length_step

    def _select(self, waiting: Sequence[Item[PayloadT]]) -> list[Item[PayloadT]]:
        """Return the oldest text and the texts nearest to it in length that fit beside it."""
        limits, max_padding = self.limits, self.limits.max_padding_tokens or 0
        oldest = waiting[0]
        longest = num_tokens = oldest_length = self.padded(oldest.length)
        batch = [oldest]
        company = [
            (self.padded(item.length), item) for item in waiting[1:] if item.group == oldest.group
        ]
        company.sort(key=lambda pair: abs(pair[0] - oldest_length))
        for length, item in company:
            if len(batch) == limits.max_rows:
                break
            padded = (len(batch) + 1) * max(longest, length)
            padding = padded - num_tokens - length
            if padded <= limits.max_tokens and padding <= max_padding:
                batch.append(item)
                longest = max(longest, length)
                num_tokens += length
        return batch
