"""Batches run in a thread of their own, so the event loop stays free to take requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kovar.errors import KovarError, RequestError
from kovar.inference.batcher import Batcher, BatchLimits, Item
from kovar.inference.runtime import Encoded, Prediction, Runtime

logger = logging.getLogger(__name__)

STALL_S = 60.0


class _Job:
    """One request: its predictions fill up in the runtime's thread, then its future is set."""

    def __init__(self, num_rows: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[Prediction]] = self.loop.create_future()
        self.predictions: dict[int, Prediction] = {}
        self.num_rows = num_rows

    def answer(self, row: int, prediction: Prediction) -> None:
        self.predictions[row] = prediction
        if len(self.predictions) == self.num_rows:
            ordered = [self.predictions[index] for index in range(self.num_rows)]
            self._settle(lambda: self.future.set_result(ordered))

    def fail(self, error: RequestError) -> None:
        self._settle(lambda: self.future.set_exception(error))

    def _settle(self, settle: Callable[[], None]) -> None:
        # A closed loop means that the caller is gone: nobody waits for the answer.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(lambda: None if self.future.done() else settle())


@dataclass(frozen=True, slots=True)
class _Row:
    job: _Job
    index: int
    encoded: Encoded


class BatchRunner:
    """Answers concurrent requests with one runtime.

    The runtime's thread takes its next batch itself, so an idle runtime never waits for the event
    loop, and texts that arrive while it is busy grow into a batch. A request with more texts than
    a batch holds is split and rejoined; a text that the model fails on fails its own request only.

    Args:
        runtime: the loaded version.
        limits: what one batch may hold.
        max_queued: texts that may wait; more are refused at once.
        clock: seconds that only move forward; deadlines are moments on it.

    Raises:
        ValueError: a text of the runtime's `max_length` would not fit a batch.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        limits: BatchLimits,
        max_queued: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if runtime.max_length > limits.max_tokens:
            raise ValueError(f"max_tokens must be at least {runtime.max_length}, one whole text")
        self.runtime = runtime
        self.max_queued = max_queued
        self._clock = clock
        self._batcher: Batcher[_Row] = Batcher(limits)
        self._wake = threading.Condition()
        self._closed = False
        self._busy_since: float | None = None
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="kovar-tokenizer")
        self._thread = threading.Thread(target=self._work, name="kovar-runtime", daemon=True)
        self._thread.start()

    @property
    def num_queued(self) -> int:
        """Texts that wait for the runtime."""
        return len(self._batcher)

    def check(self) -> None:
        """Prove that answers can still come.

        Raises:
            KovarError: the runtime's thread has died, or one batch has run for a minute.
        """
        if not self._thread.is_alive():
            raise KovarError("the runtime's thread is dead")
        since = self._busy_since
        if since is not None and self._clock() - since > STALL_S:
            raise KovarError(f"one batch has been running for more than {STALL_S:.0f} s")

    async def predict(self, texts: Sequence[str], *, deadline: float) -> list[Prediction]:
        """Predict the texts of one request.

        Args:
            texts: at least one text.
            deadline: moment on the clock after which the answer is not wanted.

        Raises:
            RequestError: 429 the queue is full; 503 the runner is closed; 504 the deadline has
                passed; 422 or 500 a text cannot be tokenized or run.
        """
        self._refuse_if_full(len(texts))
        items: list[Item[_Row]] = []
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                encoded = await self._tokenize(texts)
                job = _Job(len(encoded))
                items = [
                    Item(item.length, deadline, _Row(job, index, item))
                    for index, item in enumerate(encoded)
                ]
                with self._wake:
                    if self._closed:
                        raise _closing()
                    self._refuse_if_full(len(items))
                    self._batcher.add(items)
                    self._wake.notify()
                return await job.future
        except TimeoutError:
            raise _deadline_passed() from None
        finally:
            # Also when the client went away: its texts must not hold places in the queue.
            with self._wake:
                self._batcher.remove(items)

    def close(self) -> None:
        """End the thread once the texts that wait have been answered."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self._tokenizing.shutdown()

    def _refuse_if_full(self, num_more: int) -> None:
        if len(self._batcher) + num_more > self.max_queued:
            raise RequestError(
                f"the queue is full: {self.max_queued} texts may wait",
                status=429,
                code="queue_full",
                hint="try again after a second",
            )

    async def _tokenize(self, texts: Sequence[str]) -> list[Encoded]:
        loop = asyncio.get_running_loop()
        try:
            tokenized = loop.run_in_executor(self._tokenizing, self.runtime.tokenize, texts)
        except RuntimeError:  # the executor was shut down
            raise _closing() from None
        try:
            return await tokenized
        except Exception as problem:
            # The message may quote the text, so only the kind of error is kept.
            logger.warning("a text cannot be tokenized: %s", type(problem).__name__)
            raise RequestError("a text cannot be tokenized", code="text_not_tokenizable") from None

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._batcher and not self._closed:
                    self._wake.wait()
                if not self._batcher:
                    return
                taken = self._batcher.take(self._clock())
            for item in taken.expired:
                item.payload.job.fail(_deadline_passed())
            self._busy_since = self._clock()
            self._run([item.payload for item in taken.batch])
            self._busy_since = None

    def _run(self, rows: list[_Row]) -> None:
        if not rows:
            return
        try:
            predictions = self.runtime.run([row.encoded for row in rows])
        except Exception as problem:
            if len(rows) == 1:
                # The message may quote the text, so only the kind of error is kept.
                logger.warning("the model failed on one text: %s", type(problem).__name__)
                rows[0].job.fail(_model_failed(rows[0].index))
                return
            middle = len(rows) // 2
            self._run(rows[:middle])
            self._run(rows[middle:])
            return
        for row, prediction in zip(rows, predictions, strict=True):
            row.job.answer(row.index, prediction)


def _closing() -> RequestError:
    return RequestError(
        "this replica is closing, try another", status=503, code="closing", hint="try again"
    )


def _deadline_passed() -> RequestError:
    return RequestError(
        "the deadline passed before an answer was ready", status=504, code="deadline_exceeded"
    )


def _model_failed(index: int) -> RequestError:
    return RequestError(
        "the model failed on this text", status=500, code="model_failed", field=f"inputs[{index}]"
    )
