"""Batches run in a thread of their own, so the event loop stays free to take requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from kovar.errors import KovarError, RequestError
from kovar.inference.answering import Answer, Owner, Run, Tokenize, Waiting
from kovar.inference.batcher import Batcher, BatchLimits, Item
from kovar.inference.load import Load, LoadMeter
from kovar.inference.priority import give_way
from kovar.inference.runtime import Encoded, Prediction, Runtime, Text

logger = logging.getLogger(__name__)

STALL_S = 60.0
DOUBTFUL = 4
"""Texts that fail one after the other before the runtime itself has to show that it works."""
HARMLESS = "a"

OutputT = TypeVar("OutputT")


@dataclass(frozen=True, slots=True)
class _Row:
    request: Waiting
    index: int
    encoded: Encoded


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch that ran, for metrics.

    Attributes:
        num_rows: its texts.
        num_tokens: their tokens.
        num_padded: tokens with padding: rows × longest row.
        seconds: how long it ran.
        owner: model and version that it ran for, as the caller named them.
    """

    num_rows: int
    num_tokens: int
    num_padded: int
    seconds: float
    owner: Owner = ("", "")


@dataclass(frozen=True, slots=True)
class Queued:
    """What waits for one owner.

    Attributes:
        num_texts: its texts.
        num_tokens: the tokens of those that are tokenized.
    """

    num_texts: int
    num_tokens: int


class _Lane:
    """One of the threads that run batches.

    Attributes:
        running: the texts of its batch.
        busy_since: moment on the clock at which that began; None where it has none.
    """

    def __init__(self) -> None:
        self.running: list[_Row] = []
        self.busy_since: float | None = None


class BatchRunner:
    """Answers concurrent requests with one runtime, or with several that share a chip.

    Texts go from the event loop to a thread that tokenizes all that wait at once, and from there
    to the runtime's threads. Each takes its next batch itself, so an idle runtime never waits
    for the event loop, and texts that arrive while it is busy grow into a batch. A request with
    more texts than a batch holds is split and rejoined; a text that the model fails on fails its
    own request only.

    Args:
        runtime: the loaded version.
        limits: what one batch may hold, and how many run at a time.
        max_queued: texts that may wait; more are refused at once.
        max_wait_s: a text that would wait for longer, by the measured speed, is refused at once.
        clock: seconds that only move forward; deadlines are moments on it.
        on_batch: is told of each batch, in the thread that ran it.
        max_length: tokens of the longest text; the runtime's own if absent.

    Raises:
        ValueError: a text of `max_length` would not fit a batch.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        limits: BatchLimits,
        max_queued: int,
        max_wait_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        on_batch: Callable[[BatchRecord], None] | None = None,
        max_length: int | None = None,
    ) -> None:
        self.max_length = max_length or runtime.max_length
        if self.max_length > limits.max_tokens:
            raise ValueError(f"max_tokens must be at least {self.max_length}, one whole text")
        self.runtime = runtime
        self.max_queued = max_queued
        self.max_wait_s = max_wait_s
        self._clock = clock
        self._on_batch = on_batch
        self._batcher: Batcher[_Row] = Batcher(limits, length_step=runtime.length_step)
        self._meter = LoadMeter(limits.parallel)
        self._arrived: dict[Waiting, Sequence[Text]] = {}
        self._num_untokenized = 0
        self._refused_rows = 1
        self._lock = threading.Lock()
        self._to_tokenize = threading.Condition(self._lock)
        self._to_run = threading.Condition(self._lock)
        self._closed = self._all_tokenized = False
        self._dead: str | None = None
        self._num_failed = 0
        self._is_broken = False
        self._tokenizing: dict[Waiting, Sequence[Text]] = {}
        self._lanes = [_Lane() for _ in range(limits.parallel)]
        self._tokenizer = self._begin(self._tokenize_arrivals, "tokenizer")
        self._threads = [self._begin(partial(self._work, lane), "runtime") for lane in self._lanes]

    @property
    def num_queued(self) -> int:
        """Texts that wait for the runtime."""
        return self._num_untokenized + len(self._batcher)

    def queued(self) -> dict[Owner, Queued]:
        """Return what waits, for each model and version for which anything does."""
        texts: Counter[Owner] = Counter()
        tokens: Counter[Owner] = Counter()
        with self._lock:
            for request in (*self._arrived, *self._tokenizing):
                if not request.items:  # those that have any are counted below, or have run
                    texts[request.owner] += request.num_rows
            for item in self._batcher:
                texts[item.payload.request.owner] += 1
                tokens[item.payload.request.owner] += item.length
        return {owner: Queued(number, tokens[owner]) for owner, number in texts.items()}

    def load(self) -> Load:
        """Return what the runtime is asked and what it can do."""
        with self._lock:
            return self._meter.read(self._clock(), queued_tokens=self._batcher.num_tokens)

    def refusal(self, num_asking: int) -> RequestError | None:
        """Return why a further request would be refused; None where it may be admitted.

        It is taken to have as many texts as the last one that was refused, as long as none has
        been admitted since, and at most a batch of them.

        Args:
            num_asking: requests that have come and are not answered. Under load most of them are
                still on their way here: where they are more than the queue and the batches hold,
                those that come later find it full.
        """
        limits = self._batcher.limits
        with self._lock:
            num_coming = num_asking - self.num_queued - limits.max_rows * limits.parallel
            found = self._why_full(max(self._refused_rows, num_coming + 1))
            if found is not None:
                self._meter.refused(self._clock(), num_texts=1)
            return found

    def check(self) -> None:
        """Prove that answers can still come.

        Raises:
            KovarError: a thread has died, one batch has run for a minute, or the runtime fails on
                any text.
        """
        if self._dead is not None:
            raise KovarError(f"the {self._dead}'s thread is dead")
        if self._is_broken:
            raise KovarError("the runtime fails on every text")
        begun = [lane.busy_since for lane in self._lanes]
        since = min((moment for moment in begun if moment is not None), default=math.inf)
        if self._clock() - since > STALL_S:
            raise KovarError(f"one batch has been running for more than {STALL_S:.0f} s")

    async def predict(self, texts: Sequence[str], *, deadline: float) -> list[Prediction]:
        """Predict the texts of one request; see `ask`, which also tells the time that it took."""
        return (await self.ask(texts, deadline=deadline, run=self.runtime.run)).outputs

    async def ask(
        self,
        inputs: Sequence[Text] | Sequence[Encoded],
        *,
        deadline: float,
        run: Run[OutputT],
        tokenize: Tokenize | None = None,
        owner: Owner = ("", ""),
    ) -> Answer[OutputT]:
        """Run the inputs of one request.

        Args:
            inputs: at least one text, or texts as token ids.
            deadline: moment on the clock after which the answer is not wanted.
            run: what runs a batch of them, a method of a runtime; texts of different ones never
                share a batch.
            tokenize: turns texts into token ids; the runtime's own if absent.
            owner: model and version whose method `run` is, for the records of batches.

        Raises:
            RequestError: 429 the queue is full; 503 the runner is closed; 504 the deadline has
                passed; 422 or 500 a text cannot be tokenized or run.
        """
        request = Waiting(
            len(inputs),
            deadline=deadline,
            now=self._clock(),
            run=run,
            tokenize=tokenize or self.runtime.tokenize,
            owner=owner,
        )
        answered = False
        try:
            async with asyncio.timeout(max(0.0, deadline - request.arrived_at)):
                self._admit(request, inputs)
                answer = await request.future
            answered = True
            return cast("Answer[OutputT]", answer)
        except TimeoutError:
            raise _deadline_passed() from None
        finally:
            if not answered:
                # Also when the client went away: its texts must not hold places in the queue.
                self._withdraw(request)

    def close(self) -> None:
        """End the threads once the texts that wait have been answered."""
        with self._lock:
            self._closed = True
            self._to_tokenize.notify()
        self._tokenizer.join()
        for thread in self._threads:
            thread.join()

    def _admit(self, request: Waiting, inputs: Sequence[Text] | Sequence[Encoded]) -> None:
        with self._lock:
            if self._closed:
                raise _closing()
            self._refuse_if_full(request)
            self._refused_rows = 1
            if isinstance(inputs[0], Encoded):
                encoded = cast("Sequence[Encoded]", inputs)
                _check_lengths(encoded, self.max_length)
                self._queue(request, encoded)
                return
            self._arrived[request] = cast("Sequence[Text]", inputs)
            self._num_untokenized += request.num_rows
            self._to_tokenize.notify()

    def _refuse_if_full(self, request: Waiting) -> None:
        refusal = self._why_full(request.num_rows)
        if refusal is None:
            return
        self._refused_rows = min(request.num_rows, self._batcher.limits.max_rows)
        self._meter.refused(request.arrived_at, num_texts=request.num_rows)
        raise refusal

    def _why_full(self, num_rows: int) -> RequestError | None:
        """Return why so many more texts are too many; the lock is held."""
        wait_s = self._meter.wait_s(
            num_tokens=self._batcher.num_tokens, num_texts=self._num_untokenized
        )
        if self.num_queued + num_rows > self.max_queued:
            return _queue_full(f"{self.max_queued} texts may wait", wait_s)
        if wait_s > self.max_wait_s:
            return _queue_full(f"an answer would take more than {self.max_wait_s:g} s", wait_s)
        return None

    def _withdraw(self, request: Waiting) -> None:
        with self._lock:
            if self._arrived.pop(request, None) is not None:
                self._num_untokenized -= request.num_rows
            request.is_gone = True
            self._batcher.remove(request.items)

    def _queue(self, request: Waiting, encoded: Sequence[Encoded]) -> None:
        """Hand a request to the runtime's thread; the lock is held."""
        if self._dead is not None:
            request.fail(_closing())
            return
        now = request.tokenized_at = self._clock()
        num_tokens = request.num_tokens = sum(item.length for item in encoded)
        self._meter.arrived(now, num_texts=len(encoded), num_tokens=num_tokens)
        request.items = [
            Item(item.length, request.deadline, _Row(request, index, item), request.run)
            for index, item in enumerate(encoded)
        ]
        try:
            self._batcher.add(request.items)
        except ValueError:
            longest = max(range(len(encoded)), key=lambda index: encoded[index].length)
            request.fail(_wrong_length(longest, self._batcher.limits.max_tokens))
            return
        self._to_run.notify_all()

    def _tokenize_arrivals(self) -> None:
        while True:
            with self._lock:
                while not self._arrived and not self._closed:
                    self._to_tokenize.wait()
                if not self._arrived:
                    self._all_tokenized = True
                    self._to_run.notify_all()
                    return
                arrived, self._arrived = self._arrived, {}
                self._tokenizing = arrived
            for requests in _by_tokenizer(arrived):
                self._tokenize(requests, [arrived[request] for request in requests])
            self._tokenizing = {}
            # An idle thread refers to no text of anybody, and to no model that may go.
            del arrived, requests

    def _tokenize(self, requests: list[Waiting], texts: list[Sequence[Text]]) -> None:
        """Tokenize requests together; where one of them fails, each for itself."""
        try:
            encoded = requests[0].tokenize([text for some in texts for text in some])
        except Exception as problem:
            if len(requests) > 1:
                for request, some in zip(requests, texts, strict=True):
                    self._tokenize([request], [some])
                return
            error = _not_tokenizable(problem, requests[0].tokenize, texts[0])
            with self._lock:
                self._num_untokenized -= requests[0].num_rows
            requests[0].fail(error)
            return
        begin = 0
        with self._lock:
            for request in requests:
                self._num_untokenized -= request.num_rows
                if not request.is_gone:
                    self._queue(request, encoded[begin : begin + request.num_rows])
                begin += request.num_rows

    def _work(self, lane: _Lane) -> None:
        give_way()
        while True:
            with self._lock:
                while not self._batcher and not self._all_tokenized:
                    self._to_run.wait()
                if not self._batcher:
                    return
                taken = self._batcher.take(self._clock())
                lane.running = [item.payload for item in taken.batch]
            _expire(taken.expired)
            lane.busy_since = self._clock()
            self._run(lane.running)
            lane.busy_since, lane.running = None, []
            del taken  # as in the other thread

    def _begin(self, work: Callable[[], None], whose: str) -> threading.Thread:
        do = partial(self._until_it_fails, work, whose)
        thread = threading.Thread(target=do, name=f"kovar-{whose}", daemon=True)
        thread.start()
        return thread

    def _until_it_fails(self, work: Callable[[], None], whose: str) -> None:
        """Do a thread's work; where it fails, nobody waits for answers that cannot come."""
        try:
            work()
        except BaseException as problem:
            # The message may quote a text, so only the kind of error is kept.
            logger.error("the %s's thread has died: %s", whose, type(problem).__name__)
            with self._lock:
                self._closed = self._all_tokenized = True
                self._dead = whose
                running = (row.request for lane in self._lanes for row in lane.running)
                lost = {*self._arrived, *self._tokenizing, *running}
                lost |= {item.payload.request for item in self._batcher.clear()}
                self._arrived, self._num_untokenized = {}, 0
                self._to_tokenize.notify()
                self._to_run.notify_all()
            for request in lost:
                request.fail(_closing())

    def _run(self, rows: list[_Row]) -> None:
        if not rows:
            return
        begin = self._clock()
        try:
            outputs = rows[0].request.run([row.encoded for row in rows])
            if len(outputs) != len(rows):
                raise ValueError(f"{len(outputs)} outputs for {len(rows)} rows")
        except Exception as problem:
            if len(rows) == 1:
                # The message may quote the text, so only the kind of error is kept.
                logger.warning("the model failed on one text: %s", type(problem).__name__)
                rows[0].request.fail(_model_failed(rows[0].index))
                self._doubt()
                return
            middle = len(rows) // 2
            self._run(rows[:middle])
            self._run(rows[middle:])
            return
        self._note(rows, self._clock() - begin)
        self._answer(rows, outputs, begin)

    def _doubt(self) -> None:
        """Note that a text failed; after several, find out whether it was the texts' fault.

        A chip in an error state fails on everything that it is given from then on.
        """
        with self._lock:
            self._num_failed += 1
            if self._num_failed % DOUBTFUL:
                return
        try:
            [_] = self.runtime.run(self.runtime.tokenize([HARMLESS]))
        except Exception as problem:
            logger.error("the runtime fails on every text: %s", type(problem).__name__)
            self._is_broken = True
        else:
            self._works()

    def _works(self) -> None:
        self._num_failed, self._is_broken = 0, False

    def _note(self, rows: list[_Row], seconds: float) -> None:
        lengths = [row.encoded.length for row in rows]
        with self._lock:
            self._works()
            self._meter.served(num_tokens=sum(lengths), seconds=seconds)
        if self._on_batch is not None:
            padded = len(rows) * self._batcher.padded(max(lengths))
            owner = rows[0].request.owner
            self._on_batch(BatchRecord(len(rows), sum(lengths), padded, seconds, owner))

    def _answer(self, rows: list[_Row], outputs: Sequence[Any], begin: float) -> None:
        """Wake each event loop once for all requests that this batch has completed."""
        now = self._clock()
        complete: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
        with self._lock:  # rows of one request may be in several batches at a time
            for row, output in zip(rows, outputs, strict=True):
                if row.request.fill(row.index, output, begin=begin, end=now):
                    complete.setdefault(row.request.loop, []).append(row.request)
        for loop, requests in complete.items():
            # A closed loop means that the callers are gone: nobody waits for the answers.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(Waiting.settle_all, requests)


def _expire(items: Sequence[Item[_Row]]) -> None:
    for item in items:
        item.payload.request.fail(_deadline_passed())


def _by_tokenizer(requests: Sequence[Waiting] | dict[Waiting, Any]) -> list[list[Waiting]]:
    groups: dict[Tokenize, list[Waiting]] = {}
    for request in requests:
        groups.setdefault(request.tokenize, []).append(request)
    return list(groups.values())


def _check_lengths(encoded: Sequence[Encoded], max_length: int) -> None:
    """Refuse token ids that the model has no positions for; texts are cut by the tokenizer."""
    for index, item in enumerate(encoded):
        if not 1 <= item.length <= max_length:
            raise _wrong_length(index, max_length)


def _wrong_length(index: int, max_tokens: int) -> RequestError:
    return RequestError(
        f"from 1 to {max_tokens} tokens are allowed",
        code="wrong_num_tokens",
        field=f"inputs[{index}]",
    )


def _not_tokenizable(problem: Exception, tokenize: Tokenize, texts: Sequence[Text]) -> RequestError:
    """Name the text of a request at fault, which the tokenizer of all of them does not."""
    if isinstance(problem, RequestError):  # the tokenizing function's own refusal
        return problem
    # The message may quote the text, so only the kind of error is kept.
    logger.warning("a text cannot be tokenized: %s", type(problem).__name__)
    found = next((index for index, text in enumerate(texts) if _fails(tokenize, text)), None)
    return RequestError(
        "the text cannot be tokenized",
        code="text_not_tokenizable",
        field=None if found is None else f"inputs[{found}]",
    )


def _fails(tokenize: Tokenize, text: Text) -> bool:
    try:
        tokenize([text])
    except Exception as problem:
        # Alone it may have too many tokens, which is no failure of the tokenizer.
        return not isinstance(problem, RequestError)
    return False


def _queue_full(reason: str, wait_s: float) -> RequestError:
    after_s = max(1.0, wait_s)
    return RequestError(
        f"the queue is full: {reason}",
        status=429,
        code="queue_full",
        hint=f"try again after {math.ceil(after_s)} s",
        retry_after_s=after_s,
    )


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
