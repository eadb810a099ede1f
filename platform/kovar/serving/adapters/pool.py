"""The adapters of one replica: loaded in a thread of their own, lent to requests."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from kovar.errors import DamagedArtifactError, GoldenError, KovarError, RequestError
from kovar.serving.adapters.shelf import Refused, Shelf
from kovar.serving.api.envelope import place_of

if TYPE_CHECKING:
    from kovar.registry import Version
    from kovar.serving.served_model import ServedModel

logger = logging.getLogger(__name__)

Loader = Callable[["Version"], "ServedModel"]


class AdapterPool:
    """Lends adapters to requests, and loads those that are not in memory, one after the other.

    The event loop never waits: an adapter is fetched, verified and loaded in the pool's thread,
    once for all requests that wait for it.

    Args:
        versions: the adapters that may be asked for.
        load: fetches, verifies and loads one.
        release: is told of each that is no longer in memory.
        on_change: is told, in the pool's thread or a request's, that other ones are in memory.
        max_loaded: adapters in memory, and one more while it comes or goes.
        clock: seconds that only move forward.
    """

    def __init__(
        self,
        versions: Mapping[str, Version],
        load: Loader,
        *,
        max_loaded: int,
        release: Callable[[Version], None] = lambda _: None,
        on_change: Callable[[AdapterPool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.versions = dict(versions)
        self._load_one = load
        self._release = release
        self._on_change = on_change
        self._clock = clock
        self._shelf: Shelf[ServedModel] = Shelf(max_loaded, clock=clock)
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._loads: dict[str, Future[None]] = {}
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kovar-adapters")
        self.num_loads = self.num_failures = self.num_evictions = 0
        self.loading_s = 0.0

    @property
    def loaded(self) -> tuple[Version, ...]:
        """What is in memory, the one used longest ago first."""
        with self._lock:
            return tuple(self.versions[key] for key in self._shelf.loaded)

    def is_loaded(self, digest: str) -> bool:
        """Whether an adapter is in memory."""
        with self._lock:
            return digest in self._shelf.loaded

    def is_loading(self, digest: str) -> bool:
        """Whether an adapter is on its way into memory."""
        with self._lock:
            return self._shelf.is_loading(digest)

    def problem(self, digest: str) -> str | None:
        """Return why an adapter cannot be loaded now; None where it can."""
        with self._lock:
            failure = self._shelf.failure(digest)
        return failure.reason if failure and self._clock() < failure.until else None

    def golden(self, digest: str) -> bool | None:
        """Return whether an adapter reproduced its golden examples; None if that is not known."""
        with self._lock:
            failure = self._shelf.failure(digest)
            if failure is not None:
                return False if failure.is_wrong else None
            return True if digest in self._shelf.loaded else None

    def lend(self, digest: str, *, deadline: float) -> AbstractAsyncContextManager[ServedModel]:
        """Return a context in which an adapter is in memory.

        Args:
            digest: which one.
            deadline: moment on the clock after which it is not wanted.

        Raises:
            RequestError: 503 it cannot be loaded, or too many others wait; 504 the deadline passed.
        """
        return _Loan(self, digest, deadline)

    async def load(self, digest: str, *, deadline: float) -> None:
        """Load an adapter that is not in memory, even if that failed a moment ago.

        Raises:
            RequestError: as `lend`.
        """
        if not self.is_loaded(digest):
            await self._bring(digest, deadline, at_once=True)
            problem = self.problem(digest)
            if problem is not None:
                raise _failed(problem)
            if self._closed:
                raise _closing()

    def preload(self, digest: str) -> None:
        """Load an adapter and wait for it; that it fails is logged."""
        with self._lock:
            future = self._step(digest, at_once=True)
        if future is not None:
            future.result()

    def drop(self, digests: list[str]) -> None:
        """Let adapters go; requests that use them are answered all the same."""
        with self._lock:
            there = [digest for digest in digests if digest in self._shelf.loaded]
            self._shelf.drop(there)
        self._gone([self.versions[digest] for digest in there])

    def close(self) -> None:
        """End the thread once the adapter that it loads is there."""
        with self._lock:
            self._closed = True
            self._settled.notify_all()
        self._thread.shutdown(cancel_futures=False)

    async def take(self, digest: str, deadline: float) -> ServedModel:
        """Use an adapter, loaded first where it is not in memory; `give_back` ends the use."""
        while True:
            with self._lock:
                model = self._shelf.take(digest)
            if model is not None:
                return model
            await self._bring(digest, deadline)

    def give_back(self, model: ServedModel) -> None:
        """Stop using an adapter."""
        with self._lock:
            self._shelf.give_back(model)
            self._settled.notify_all()

    async def _bring(self, digest: str, deadline: float, *, at_once: bool = False) -> None:
        with self._lock:
            future = self._step(digest, at_once=at_once)
        if future is None:
            return
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                await asyncio.wrap_future(future)
        except TimeoutError:
            raise RequestError(
                "the deadline passed before the adapter was loaded",
                status=504,
                code="deadline_exceeded",
            ) from None

    def _step(self, digest: str, *, at_once: bool = False) -> Future[None] | None:
        """Start a load, or join the one under way; the lock is held."""
        if digest in self._shelf.loaded:
            return None
        if self._closed:
            raise _closing()
        step = self._shelf.want(digest, at_once=at_once)
        if isinstance(step, Refused):
            raise _refusal(step)
        if step == "load":
            future: Future[None] = Future()
            # Nobody who stops waiting takes it from the others.
            future.set_running_or_notify_cancel()
            self._loads[digest] = future
            self._thread.submit(self._load, digest)
        return self._loads[digest]

    def _load(self, digest: str) -> None:
        """Load one adapter, in the pool's thread."""
        version, gone, begin = self.versions[digest], [], self._clock()
        with self._lock:
            self._settled.wait_for(lambda: self._shelf.is_settled or self._closed)
            is_closed = self._closed
        try:
            model = None if is_closed else self._loaded(version)
        except Exception as problem:
            # Callers are told the kind; paths and addresses are for the log.
            told = problem.message if isinstance(problem, KovarError) else place_of(problem)
            logger.error("the adapter %s cannot be loaded: %s", version, told)
            with self._lock:
                is_wrong = isinstance(problem, GoldenError)
                self._shelf.fail(digest, f"{version}: {_kind_of(problem)}", is_wrong=is_wrong)
                self.num_failures += 1
                future = self._loads.pop(digest)
        else:
            with self._lock:
                if model is not None:
                    gone = [one.served.digest for one in self._shelf.put(digest, model)]
                    self.num_loads += 1
                    self.num_evictions += len(gone)
                future = self._loads.pop(digest)
            if model is not None:
                logger.info("loaded the adapter %s in %.2f s", version, self._clock() - begin)
            del model
        self.loading_s += self._clock() - begin
        future.set_result(None)
        self._gone([self.versions[one] for one in gone])

    def _loaded(self, version: Version) -> ServedModel:
        # In a thread that ends: those of OpenMP stay with a thread that computed, and take the
        # cores from the runtime's.
        with ThreadPoolExecutor(1, thread_name_prefix="kovar-adapter") as own:
            return own.submit(self._load_one, version).result()

    def _gone(self, versions: list[Version]) -> None:
        for version in versions:
            logger.info("the adapter %s is no longer in memory", version)
            self._release(version)
        self._on_change(self)


class _Loan:
    """One request's use of an adapter."""

    def __init__(self, pool: AdapterPool, digest: str, deadline: float) -> None:
        self._pool, self._digest, self._deadline = pool, digest, deadline
        self._model: ServedModel | None = None

    async def __aenter__(self) -> ServedModel:
        self._model = await self._pool.take(self._digest, self._deadline)
        return self._model

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._model is not None:
            self._pool.give_back(self._model)


def _kind_of(problem: Exception) -> str:
    if isinstance(problem, GoldenError):
        return "it does not answer as it was evaluated"
    if isinstance(problem, DamagedArtifactError):
        return "a file of it is missing or damaged"
    return "it does not load; the log has the reason"


def _refusal(refused: Refused) -> RequestError:
    if refused.failure is not None:
        return _failed(refused.failure.reason, retry_after_s=refused.wait_s)
    return RequestError(
        "too many other adapters wait to be loaded",
        status=503,
        code="adapters_busy",
        retry_after_s=refused.wait_s,
    )


def _closing() -> RequestError:
    return RequestError("this replica is closing, try another", status=503, code="closing")


def _failed(reason: str, *, retry_after_s: float | None = None) -> RequestError:
    return RequestError(
        f"the adapter cannot be loaded: {reason}",
        status=503,
        code="adapter_failed",
        retry_after_s=retry_after_s,
    )
