"""How much a request may hold, by what it says of itself: checked before anything is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kovar.serving.protocol.refusal import check_count, too_long
from kovar.serving.protocol.served import ServedVersion
from kovar.serving.protocol.tensors import BYTES, invalid_tensor
from kovar.serving.spec import RequestLimits

MAX_TENSORS: Final = 16
"""Of one request, as inputs or as outputs: more than any model has."""
MAX_DIMENSIONS: Final = 8
MAX_SIZE: Final = (1 << 64) - 1
"""Of one dimension: the protocol writes sizes as unsigned numbers of 64 bits."""


def check_tensors(number: int, *, field: str) -> None:
    """Refuse more tensors than any model has.

    Raises:
        RequestError: 422, naming the field.
    """
    if number > MAX_TENSORS:
        raise too_long(field)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the tensors of one request may hold.

    Without it a body of 4 MiB may hold a million texts without a letter, which take seconds to
    decode on the thread that all requests share.

    Args:
        limits: what is refused.
        max_length: tokens of one row.
    """

    limits: RequestLimits
    max_length: int

    @classmethod
    def of(cls, limits: RequestLimits, served: ServedVersion) -> Bounds:
        """Return the bounds of requests to a model."""
        return cls(limits, served.max_length)

    def elements(self, datatype: str, shape: Sequence[int], *, field: str) -> int | None:
        """Return how many elements a tensor must have.

        Args:
            datatype: the protocol's name of it.
            shape: as the client wrote it.
            field: the tensor's place.

        Returns:
            None where no input has such a shape: what it holds need not be read.

        Raises:
            RequestError: 400 or 422, more rows or longer ones than are allowed.
        """
        if any(size > MAX_SIZE for size in shape):
            raise invalid_tensor(f"{field}.shape", "a size above 64 bits")
        if not 1 <= len(shape) <= 2 or min(shape) < 0:
            return None
        if datatype == BYTES:
            if shape[1:] not in ([], [1]):
                return None
            check_count(shape[0], self.limits, field=f"{field}.data")
        elif len(shape) == 2:
            check_count(shape[0], self.limits, field=f"{field}.shape[0]")
            if not 1 <= shape[1] <= self.max_length:
                raise invalid_tensor(
                    f"{field}.shape[1]", f"from 1 to {self.max_length} tokens are allowed"
                )
        else:
            return None
        return math.prod(shape)
