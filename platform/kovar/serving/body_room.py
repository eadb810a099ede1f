"""How much memory the bodies of all requests under way may take at one replica."""

from __future__ import annotations

from typing import Final

from kovar.errors import RequestError
from kovar.serving.exchange import Exchange
from kovar.serving.spec import RequestLimits

ROOM_BYTES: Final = 64 << 20


class BodyRoom:
    """Memory for bodies, from their first byte until their requests have ended.

    One body is bounded, and so is the number of requests; but hundreds of the largest ones at a
    time would still take gigabytes, and a replica that is killed for them loses everybody's.

    Args:
        max_bytes: of all bodies.
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = self._max_bytes = max_bytes

    @classmethod
    def of(cls, limits: RequestLimits) -> BodyRoom:
        """Return room for two of the largest bodies at least."""
        return cls(max(ROOM_BYTES, 2 * limits.max_body_bytes))

    def take(self, exchange: Exchange, num_bytes: int) -> None:
        """Hold a piece of a request's body.

        Raises:
            RequestError: 429 there is no room for it now.
        """
        if num_bytes > self._left:
            raise RequestError(
                "the bodies of other requests fill the memory for them",
                status=429,
                code="bodies_full",
                hint="try again after a second",
                retry_after_s=1.0,
            )
        self._left -= num_bytes
        exchange.held_bytes += num_bytes

    def give_back(self, exchange: Exchange) -> None:
        """Let go of all that a request holds."""
        self._left += exchange.held_bytes
        exchange.held_bytes = 0
