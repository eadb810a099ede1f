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

from kovar.models.forward import Recording, Value

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


def fragmentation(recording: Recording, num_tokens: float) -> float:
    """Return the bytes in holes when the forward pass of a training step ends.

    Args:
        recording: the pass.
        num_tokens: tokens of the batch.
    """
    heap = Heap()
    last_use: dict[Value, int] = {}
    for index, operation in enumerate(recording.operations):
        for value in (*operation.inputs, *operation.holds, operation.output):
            last_use[value.root] = index
    kept: set[Value] = set()
    alive: dict[Value, float] = {}
    for index, operation in enumerate(recording.operations):
        scratch = operation.forward_scratch.at(num_tokens)
        if 0 < scratch < MAPPED_FROM_BYTES:
            heap.allocate(scratch)
        kept.update(value.root for value in operation.saved)
        for value in (*operation.inputs, *operation.saved, operation.output):
            size = value.root.size.at(num_tokens)
            if value.root not in alive and size < MAPPED_FROM_BYTES:
                alive[value.root] = size
                heap.allocate(size)
        if 0 < scratch < MAPPED_FROM_BYTES:
            heap.free(scratch)
        for value in [v for v in alive if v not in kept and last_use.get(v, -1) <= index]:
            heap.free(alive.pop(value))
    return heap.holes_bytes
