"""How much one caller may ask: pure decisions of counts and a clock."""

from __future__ import annotations

from dataclasses import dataclass

from kovar.serving.access.key import KeyLimits


@dataclass(slots=True)
class TokenBucket:
    """A bucket that fills at a constant rate; each request takes one token out.

    Source: https://en.wikipedia.org/wiki/Token_bucket

    Args:
        rate: tokens a second.
        capacity: tokens that the full bucket holds; it begins full.
        updated: moment, in seconds, at which it began.
    """

    rate: float
    capacity: float
    updated: float
    tokens: float = -1.0

    def __post_init__(self) -> None:
        self.tokens = self.capacity

    def take(self, now: float) -> float:
        """Take a token.

        Returns:
            0.0 when one was taken; else the seconds until there is one, and nothing was taken.
        """
        elapsed = max(0.0, now - self.updated)
        self.tokens = min(self.capacity, self.tokens + elapsed * self.rate)
        self.updated = max(self.updated, now)
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) / self.rate


class Allowance:
    """What one key has used of its limits.

    Args:
        limits: of the key.
        now: moment, in seconds.
    """

    def __init__(self, limits: KeyLimits, now: float) -> None:
        self.num_running = 0
        self._limits = limits
        self._bucket = _bucket_of(limits, now)

    def follow(self, limits: KeyLimits, now: float) -> None:
        """Take over limits that were changed while requests run."""
        if limits != self._limits:
            self._limits = limits
            self._bucket = _bucket_of(limits, now)

    @property
    def is_busy(self) -> bool:
        """Whether as many requests run as may."""
        most = self._limits.max_concurrent
        return most is not None and self.num_running >= most

    def wait_s(self, now: float) -> float:
        """Use one request of the rate; return 0.0, or the seconds until there is one again."""
        return self._bucket.take(now) if self._bucket is not None else 0.0


def _bucket_of(limits: KeyLimits, now: float) -> TokenBucket | None:
    if limits.requests_per_s is None:
        return None
    return TokenBucket(limits.requests_per_s, limits.capacity, now)
