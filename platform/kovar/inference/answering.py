"""One request on its way through a runner, and its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kovar.errors import RequestError
from kovar.inference.batcher import Item
from kovar.inference.runtime import Encoded, Text

OutputT = TypeVar("OutputT")
OutputT_co = TypeVar("OutputT_co", covariant=True)

Run = Callable[[Sequence[Encoded]], Sequence[OutputT]]
"""What runs a batch: one output for each row, in order."""

Tokenize = Callable[[Sequence[Text]], list[Encoded]]

Owner = tuple[str, str]
"""Model and version that a request is for."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a request's time went, in seconds.

    Attributes:
        tokenize_s: until its texts were token ids, the wait for the tokenizer included.
        queue_s: from there until its first text ran.
        compute_s: from there until its last text was answered.
    """

    tokenize_s: float
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class Answer(Generic[OutputT_co]):
    """What a request asked for.

    Attributes:
        outputs: one for each input, in order.
        timing: where the time went.
        num_tokens: tokens of the inputs, special ones included.
    """

    outputs: list[OutputT_co]
    timing: Timing
    num_tokens: int


class Waiting:
    """One request: its outputs fill up in the runtime's threads, then its future is set.

    Made on the event loop that waits for it.
    """

    __slots__ = (
        "_begin",
        "_end",
        "_missing",
        "_outputs",
        "arrived_at",
        "deadline",
        "future",
        "is_gone",
        "items",
        "loop",
        "num_rows",
        "num_tokens",
        "owner",
        "run",
        "tokenize",
        "tokenized_at",
    )

    def __init__(
        self,
        num_rows: int,
        *,
        deadline: float,
        now: float,
        run: Run[Any],
        tokenize: Tokenize,
        owner: Owner = ("", ""),
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Answer[Any]] = self.loop.create_future()
        self.num_rows, self.deadline = num_rows, deadline
        self.run, self.tokenize, self.owner = run, tokenize, owner
        self.arrived_at = self.tokenized_at = now
        self.num_tokens = 0
        self.items: list[Item[Any]] = []
        self.is_gone = False
        self._outputs: list[Any] = [None] * num_rows
        self._missing = num_rows
        self._begin = self._end = now

    def fill(self, row: int, output: object, *, begin: float, end: float) -> bool:
        """Note the output of one row; return whether it was the last that was missing."""
        whole = self._missing == self.num_rows
        self._begin = begin if whole else min(begin, self._begin)
        self._outputs[row] = output
        self._missing -= 1
        self._end = end
        return self._missing == 0

    def fail(self, error: RequestError) -> None:
        """Answer with an error; from any thread."""
        # A closed loop means that the caller is gone: nobody waits for the answer.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: RequestError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    @staticmethod
    def settle_all(requests: Sequence[Waiting]) -> None:
        """Answer requests whose rows are all there; on their event loop."""
        for request in requests:
            if not request.future.done():
                request.future.set_result(request._answer())

    def _answer(self) -> Answer[Any]:
        timing = Timing(
            self.tokenized_at - self.arrived_at,
            self._begin - self.tokenized_at,
            self._end - self._begin,
        )
        return Answer(self._outputs, timing, self.num_tokens)
