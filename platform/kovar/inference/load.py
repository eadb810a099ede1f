"""How much a runtime is asked and how fast it answers: numbers for the autoscaler and metrics."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

ARRIVAL_WINDOW_S: Final = 10.0
_SLICE_S: Final = 1.0
# Of a batch's weight, what is left one batch later: about the last hundred batches count.
_KEPT: Final = 0.99
# Batches whose sizes differ less than this, as deviation over mean, do not tell a batch's fixed
# cost from a token's.
_MIN_SPREAD: Final = 0.2


@dataclass(frozen=True, slots=True)
class Load:
    """What one runtime is asked now, and what it can do.

    Attributes:
        queued_tokens: tokens that wait.
        arriving_tokens_per_s: tokens offered, mean of the last ten seconds; refused ones included.
        tokens_per_s: tokens answered in a second of full batches; None before the first batch.
        light_s: seconds of a batch of one text; None before the first batch.
        tokens_per_text: mean length; None before the first text.
    """

    queued_tokens: int
    arriving_tokens_per_s: float
    tokens_per_s: float | None
    light_s: float | None
    tokens_per_text: float | None


class LoadMeter:
    """Measures arrivals and batches; every moment is given by the caller.

    A batch takes `fixed + tokens × each` seconds. Both are fitted by least squares over the recent
    batches, so the speed of full batches is known while the batches are still small. Where all
    are of one size, everything counts as the tokens' cost: an estimate that errs towards slow.

    Args:
        num_parallel: batches that run at a time; so many share what waits.
    """

    def __init__(self, num_parallel: int = 1) -> None:
        self._num_parallel = num_parallel
        self._arrivals: deque[list[float]] = deque()  # [begin of the slice, tokens]
        self._num_texts = self._num_tokens = 0
        self._weight = self._seconds = self._tokens = 0.0
        self._tokens_squared = self._tokens_seconds = 0.0

    def arrived(self, now: float, *, num_texts: int, num_tokens: int) -> None:
        """Note texts that were tokenized."""
        self._num_texts += num_texts
        self._num_tokens += num_tokens
        self._note(now, num_tokens)

    def refused(self, now: float, *, num_texts: int) -> None:
        """Note texts that found the queue full; they count with the mean length."""
        self._note(now, num_texts * (self._mean_length or 0.0))

    def served(self, *, num_tokens: int, seconds: float) -> None:
        """Note a batch that ran."""
        self._weight = self._weight * _KEPT + 1.0
        self._seconds = self._seconds * _KEPT + seconds
        self._tokens = self._tokens * _KEPT + num_tokens
        self._tokens_squared = self._tokens_squared * _KEPT + num_tokens**2
        self._tokens_seconds = self._tokens_seconds * _KEPT + num_tokens * seconds

    def wait_s(self, *, num_tokens: int, num_texts: int = 0) -> float:
        """Return how long tokens, and texts of the mean length, take; 0 before the first batch."""
        cost = self._cost()
        if cost is None:
            return 0.0
        tokens = num_tokens + num_texts * (self._mean_length or 0.0)
        return cost[1] * tokens / self._num_parallel

    def read(self, now: float, *, queued_tokens: int) -> Load:
        """Return the load at a moment."""
        self._forget(now)
        arriving = sum(tokens for _, tokens in self._arrivals) / ARRIVAL_WINDOW_S
        cost = self._cost()
        light = cost and cost[0] + cost[1] * (self._mean_length or 0.0)
        speed = self._num_parallel / cost[1] if cost else None
        return Load(queued_tokens, arriving, speed, light or None, self._mean_length)

    @property
    def _mean_length(self) -> float | None:
        return self._num_tokens / self._num_texts if self._num_texts else None

    def _note(self, now: float, num_tokens: float) -> None:
        self._forget(now)
        begin = now - now % _SLICE_S
        if self._arrivals and self._arrivals[-1][0] == begin:
            self._arrivals[-1][1] += num_tokens
        else:
            self._arrivals.append([begin, num_tokens])

    def _forget(self, now: float) -> None:
        while self._arrivals and self._arrivals[0][0] <= now - ARRIVAL_WINDOW_S:
            self._arrivals.popleft()

    def _cost(self) -> tuple[float, float] | None:
        """Return the seconds of a batch and those of a token."""
        if self._seconds <= 0.0 or self._tokens <= 0.0:
            return None
        mean_tokens, mean_s = self._tokens / self._weight, self._seconds / self._weight
        variance = self._tokens_squared / self._weight - mean_tokens**2
        if variance > (_MIN_SPREAD * mean_tokens) ** 2:
            each = (self._tokens_seconds / self._weight - mean_tokens * mean_s) / variance
            fixed = mean_s - each * mean_tokens
            if each > 0.0 and fixed > 0.0:
                return fixed, each
        return 0.0, mean_s / mean_tokens
