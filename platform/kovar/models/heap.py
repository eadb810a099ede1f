"""What a forward pass leaves unusable in the heap of glibc, where torch's CPU tensors live.

Two facts make holes that stay empty. torch asks for aligned memory, and glibc's `memalign` looks
for a free piece larger than what is asked for, so a tensor never moves into the hole of one of its
own size. And between two tensors lie small objects, such as autograd's nodes, so holes do not merge
while the pass goes on. Tensors of 32 MiB and more are mapped by themselves and leave no hole
(`DEFAULT_MMAP_THRESHOLD_MAX`, https://man7.org/linux/man-pages/man3/mallopt.3.html).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

from kovar.models.forward import Bytes, Recording
from kovar.models.liveness import changes

MAPPED_FROM_BYTES: Final = 32 << 20

PADDING_BYTES: Final = 128
"""Alignment to 64 bytes and a chunk's header: what lies between two neighbors."""


class Heap:
    """Sizes of holes, and how far the heap has grown."""

    def __init__(self) -> None:
        self.size = 0.0
        self._holes: list[float] = []

    def allocate(self, num_bytes: float) -> None:
        """Place a tensor into the smallest hole that `memalign` accepts, or at the end."""
        place = bisect_left(self._holes, num_bytes + PADDING_BYTES)
        if place == len(self._holes):
            self.size += num_bytes
        else:
            insort(self._holes, self._holes.pop(place) - num_bytes)

    def free(self, num_bytes: float) -> None:
        """Leave a hole."""
        insort(self._holes, num_bytes)

    @property
    def holes_bytes(self) -> float:
        """Bytes in holes."""
        return sum(self._holes)


class Churn:
    """What a training step's forward pass allocates and frees, in order.

    Args:
        recording: the pass.
    """

    def __init__(self, recording: Recording) -> None:
        self._events: list[tuple[bool, Bytes]] = []
        for change in changes(recording, keeps_saved=True):
            scratch = change.operation.forward_scratch
            self._events.append((True, scratch))
            self._events += [(True, value.size) for value in change.born]
            self._events.append((False, scratch))
            self._events += [(False, value.size) for value in change.dead]

    def holes_bytes(self, num_tokens: float) -> float:
        """Return the bytes in holes when the pass of a batch of so many tokens ends."""
        heap = Heap()
        for is_new, size in self._events:
            num_bytes = size.fixed + size.per_token * num_tokens
            if 0 < num_bytes < MAPPED_FROM_BYTES:
                if is_new:
                    heap.allocate(num_bytes)
                else:
                    heap.free(num_bytes)
        return heap.holes_bytes
