"""Adapters lent to requests, loaded by a scripted loader."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from kovar.errors import DamagedArtifactError, GoldenError, RequestError
from kovar.serving.adapters.pool import AdapterPool
from kovar.serving.adapters.routing import routing_ids


class Loader:
    """Loads what it is told to, once its gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[str] = []
        self.threads: list[threading.Thread] = []
        self.problems: dict[str, Exception] = {}

    def __call__(self, version: Named) -> SimpleNamespace:
        assert self.gate.wait(10)
        self.asked.append(version.model)
        self.threads.append(threading.current_thread())
        if version.model in self.problems:
            raise self.problems[version.model]
        return SimpleNamespace(served=SimpleNamespace(digest=version.digest), model=version.model)


@dataclass(frozen=True)
class Named:
    """As much of a version as the pool looks at."""

    model: str

    @property
    def digest(self) -> str:
        return self.model

    def __str__(self) -> str:
        return f"{self.model}@1"


def versions(*names):
    return {name: Named(name) for name in names}


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def pool(loader):
    pool = AdapterPool(versions("a", "b", "c"), loader, max_loaded=2)
    yield pool
    loader.gate.set()
    pool.close()


def soon(seconds=10.0):
    return time.monotonic() + seconds


async def use(pool, name):
    async with pool.lend(name, deadline=soon()) as model:
        return model.model


def test_requests_that_come_together_load_an_adapter_once(pool, loader):
    async def many():
        return await asyncio.gather(*(use(pool, "a") for _ in range(20)))

    assert asyncio.run(many()) == ["a"] * 20
    assert loader.asked == ["a"]
    assert pool.num_loads == 1


def test_the_thread_that_loaded_has_ended_and_with_it_those_that_helped_it_compute(pool, loader):
    asyncio.run(use(pool, "a"))
    asyncio.run(use(pool, "b"))
    assert len(set(loader.threads)) == 2
    assert not any(thread.is_alive() for thread in loader.threads)


def test_others_are_answered_while_one_is_loaded(pool, loader):
    async def both():
        await use(pool, "a")
        loader.gate.clear()
        waiting = asyncio.ensure_future(use(pool, "b"))
        await asyncio.sleep(0)
        answers = [await use(pool, "a") for _ in range(5)]
        assert not waiting.done()
        assert pool.is_loading("b")
        loader.gate.set()
        return [*answers, await waiting]

    assert asyncio.run(both()) == ["a"] * 5 + ["b"]


def test_an_adapter_in_use_is_not_the_one_that_goes(pool):
    async def three():
        async with pool.lend("a", deadline=soon()) as held:
            await use(pool, "b")
            await use(pool, "c")
            assert pool.is_loaded("a")
            return held.model

    assert asyncio.run(three()) == "a"
    assert [one.model for one in pool.loaded] == ["a", "c"]
    assert pool.num_evictions == 1


def test_the_next_one_waits_until_what_goes_has_lost_its_last_user(pool, loader):
    async def crowded():
        async with pool.lend("a", deadline=soon()), pool.lend("b", deadline=soon()):
            await use(pool, "c")
            again = asyncio.ensure_future(use(pool, "a"))
            await asyncio.sleep(0.02)
            loader.asked.append("left")
        return await again

    assert asyncio.run(crowded()) == "a"
    assert loader.asked == ["a", "b", "c", "left", "a"]


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (GoldenError("0.3 off"), "does not answer as it was evaluated"),
        (DamagedArtifactError("s3://bucket/blob is gone"), "missing or damaged"),
        (RuntimeError("/secret/path"), "the log has the reason"),
    ],
)
def test_a_failure_is_told_to_all_that_wait_and_to_nobody_else(pool, loader, problem, says):
    loader.problems["b"] = problem

    async def all_of_them():
        uses = [use(pool, "b"), use(pool, "b"), use(pool, "a")]
        return await asyncio.gather(*uses, return_exceptions=True)

    *failed, answered = asyncio.run(all_of_them())
    assert answered == "a"
    assert {(one.status, one.code) for one in failed} == {(503, "adapter_failed")}
    assert says in str(failed[0])
    assert loader.asked.count("b") == 1
    assert pool.golden("b") is (False if isinstance(problem, GoldenError) else None)


def test_a_failure_is_not_tried_again_by_the_next_request_but_by_an_operator(pool, loader):
    loader.problems["b"] = DamagedArtifactError("gone")
    for _ in range(3):
        with pytest.raises(RequestError, match="cannot be loaded") as refusal:
            asyncio.run(use(pool, "b"))
        assert refusal.value.retry_after_s > 0
    assert loader.asked == ["b"]
    del loader.problems["b"]
    asyncio.run(pool.load("b", deadline=soon()))
    assert asyncio.run(use(pool, "b")) == "b"


def test_a_load_that_an_operator_asked_for_tells_that_it_failed(pool, loader):
    loader.problems["b"] = DamagedArtifactError("gone")
    with pytest.raises(RequestError, match="missing or damaged"):
        asyncio.run(pool.load("b", deadline=soon()))
    assert pool.problem("b")


def test_a_request_that_waits_too_long_gives_up_and_the_adapter_is_loaded_all_the_same(
    pool, loader
):
    loader.gate.clear()
    with pytest.raises(RequestError) as refusal:
        asyncio.run(pool.take("a", soon(0.01)))
    assert (refusal.value.status, refusal.value.code) == (504, "deadline_exceeded")
    loader.gate.set()
    assert asyncio.run(use(pool, "a")) == "a"
    assert loader.asked == ["a"]


def test_an_adapter_that_is_dropped_is_answered_to_its_end_and_loaded_again(pool, loader):
    async def dropped():
        async with pool.lend("a", deadline=soon()) as model:
            pool.drop(["a"])
            assert not pool.is_loaded("a")
            assert model.model == "a"
        return await use(pool, "a")

    assert asyncio.run(dropped()) == "a"
    assert loader.asked == ["a", "a"]


def test_the_router_is_told_of_what_is_in_memory(loader):
    told = []
    pool = AdapterPool(
        versions("a", "b"),
        loader,
        max_loaded=1,
        on_change=lambda pool: told.append(routing_ids(pool)),
    )
    asyncio.run(use(pool, "a"))
    pool.preload("b")
    pool.close()
    assert told == [["a", "a@1"], ["b", "b@1"]]


def test_a_load_that_waits_while_the_pool_closes_does_not_pretend_that_it_was_done(pool, loader):
    loader.gate.clear()

    async def load_two_and_close():
        loads = [asyncio.create_task(pool.load(name, deadline=soon())) for name in "ab"]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(pool.close))
        while not pool._closed:
            await asyncio.sleep(0)
        loader.gate.set()
        await closing
        return await asyncio.gather(*loads, return_exceptions=True)

    outcomes = asyncio.run(load_two_and_close())
    assert [problem.code for problem in outcomes] == ["closing", "closing"]


def test_a_closed_pool_loads_nothing(loader):
    pool = AdapterPool(versions("a"), loader, max_loaded=1)
    pool.close()
    with pytest.raises(RequestError, match="closing"):
        asyncio.run(use(pool, "a"))
