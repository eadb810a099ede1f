from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kovar.errors import KovarError, RequestError
from kovar.inference import BatchLimits, BatchRecord, BatchRunner, Encoded
from kovar.inference.runner import DOUBTFUL, Queued
from scripted import ScriptedRuntime

LIMITS = BatchLimits(max_rows=4, max_tokens=64)


@pytest.fixture
def runtime() -> ScriptedRuntime:
    return ScriptedRuntime()


@pytest.fixture
def runner(runtime: ScriptedRuntime) -> Iterator[BatchRunner]:
    runner = BatchRunner(runtime, limits=LIMITS, max_queued=16)
    yield runner
    runtime.gate.set()
    runner.close()


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


async def started(runtime: ScriptedRuntime) -> None:
    await asyncio.to_thread(runtime.busy.wait, 5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def labels(answer: Awaitable[list]) -> list[str]:
    return [prediction.label for prediction in await answer]


def test_each_text_gets_its_own_answer_in_order(runner):
    answer = labels(runner.predict(["good film", "bad film"], deadline=soon()))
    assert asyncio.run(answer) == ["positive", "negative"]


def test_a_request_larger_than_a_batch_is_split_and_rejoined(runner, runtime):
    texts = ["good"] * 5 + ["bad"] * 5
    assert asyncio.run(labels(runner.predict(texts, deadline=soon()))) == (
        ["positive"] * 5 + ["negative"] * 5
    )
    assert [len(batch) for batch in runtime.batches] == [4, 4, 2]


def test_texts_that_arrive_while_the_runtime_is_busy_become_one_batch(runner, runtime):
    async def talk():
        runtime.gate.clear()
        first = asyncio.ensure_future(runner.predict(["one"], deadline=soon()))
        await started(runtime)
        rest = [
            asyncio.ensure_future(runner.predict([word], deadline=soon()))
            for word in ("two", "three", "four")
        ]
        await until(lambda: runner.num_queued == 3)
        runtime.gate.set()
        await asyncio.gather(first, *rest)

    asyncio.run(talk())
    assert [len(batch) for batch in runtime.batches] == [1, 3]


def test_as_many_batches_run_at_a_time_as_are_allowed(runtime):
    runner = BatchRunner(runtime, limits=LIMITS.model_copy(update={"parallel": 2}), max_queued=16)
    runtime.gate.clear()

    async def ask() -> list[str]:
        answer = asyncio.create_task(labels(runner.predict(["good", "bad"] * 6, deadline=soon())))
        await until(lambda: len(runtime.batches) == 2)
        runtime.gate.set()
        return await answer

    assert asyncio.run(ask()) == ["positive", "negative"] * 6
    assert [len(batch) for batch in runtime.batches] == [4, 4, 4]
    runner.close()


def test_one_bad_text_fails_its_own_request_alone(runner, runtime):
    async def talk():
        runtime.gate.clear()
        blocker = asyncio.ensure_future(runner.predict(["blocker"], deadline=soon()))
        await started(runtime)
        texts = ["good one", "poison pill", "good two"]
        answers = [asyncio.ensure_future(runner.predict([t], deadline=soon())) for t in texts]
        await until(lambda: runner.num_queued == 3)
        runtime.gate.set()
        await blocker
        return await asyncio.gather(*answers, return_exceptions=True)

    good, bad, also_good = asyncio.run(talk())
    assert good[0].label == also_good[0].label == "positive"
    assert (bad.status, bad.code, bad.field) == (500, "model_failed", "inputs[0]")
    assert "poison" not in str(bad)


def test_a_full_queue_refuses_at_once_and_recovers(runner, runtime):
    async def talk():
        runtime.gate.clear()
        waiting = asyncio.ensure_future(runner.predict(["a"] * 16, deadline=soon()))
        await until(lambda: runner.num_queued == 12)
        with pytest.raises(RequestError) as refusal:
            await runner.predict(["b"] * 5, deadline=soon())
        runtime.gate.set()
        await waiting
        await runner.predict(["b"] * 5, deadline=soon())
        return refusal.value

    refusal = asyncio.run(talk())
    assert (refusal.status, refusal.code) == (429, "queue_full")


def test_who_finds_the_queue_full_is_told_beforehand(runner, runtime):
    async def talk():
        told = [runner.refusal(0), runner.refusal(19)]
        # Four run and sixteen wait: the twentieth still fits, the next does not.
        told.append(runner.refusal(20))
        runtime.gate.clear()
        waiting = asyncio.ensure_future(runner.predict(["a"] * 16, deadline=soon()))
        await until(lambda: runner.num_queued == 12)
        told.append(runner.refusal(1))
        with pytest.raises(RequestError):
            await runner.predict(["b"] * 5, deadline=soon())
        # As large as the last one: five, but at most a batch of four.
        told.append(runner.refusal(1))
        with pytest.raises(RequestError):
            await runner.predict(["b"] * 9, deadline=soon())
        more = asyncio.ensure_future(runner.predict(["c"], deadline=soon()))
        await until(lambda: runner.num_queued == 13)
        told.append(runner.refusal(2))
        with pytest.raises(RequestError):
            await runner.predict(["b"] * 4, deadline=soon())
        told.append(runner.refusal(2))
        runtime.gate.set()
        await asyncio.gather(waiting, more)
        told.append(runner.refusal(0))
        return told

    told = asyncio.run(talk())
    full = [None if refusal is None else refusal.code for refusal in told]
    assert full == [None, None, "queue_full", None, None, None, "queue_full", None]


def test_a_queue_that_takes_too_long_refuses_and_says_when_to_come_back(runtime):
    now = [0.0]
    runner = BatchRunner(
        runtime, limits=LIMITS, max_queued=100, max_wait_s=2.0, clock=lambda: now[0]
    )

    async def talk():
        runtime.gate.clear()
        runtime.busy.clear()
        slow = asyncio.ensure_future(runner.predict(["one"], deadline=1e9))
        await started(runtime)
        now[0] = 1.0  # a token takes a second
        runtime.gate.set()
        await slow
        runtime.gate.clear()
        waiting = [asyncio.ensure_future(runner.predict(["a"] * 7, deadline=1e9))]
        await until(lambda: runner.num_queued == 3)
        with pytest.raises(RequestError) as refusal:
            await runner.predict(["b"], deadline=1e9)
        runtime.gate.set()
        await asyncio.gather(*waiting)
        return refusal.value

    refusal = asyncio.run(talk())
    runner.close()
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (429, "queue_full", 3.0)


def test_a_text_whose_deadline_passes_in_the_queue_is_refused_and_never_runs(runner, runtime):
    async def talk():
        runtime.gate.clear()
        first = asyncio.ensure_future(runner.predict(["one"], deadline=soon()))
        await started(runtime)
        with pytest.raises(RequestError) as refusal:
            await runner.predict(["late late"], deadline=soon(0.05))
        runtime.gate.set()
        await first
        return refusal.value

    refusal = asyncio.run(talk())
    assert (refusal.status, refusal.code) == (504, "deadline_exceeded")
    assert runtime.batches == [[1]]


def test_a_caller_that_goes_away_frees_its_places_in_the_queue(runner, runtime):
    async def talk():
        runtime.gate.clear()
        first = asyncio.ensure_future(runner.predict(["one"], deadline=soon()))
        await started(runtime)
        gone = asyncio.ensure_future(runner.predict(["two"] * 8, deadline=soon()))
        await until(lambda: runner.num_queued == 8)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert runner.num_queued == 0
        runtime.gate.set()
        await first

    asyncio.run(talk())


def test_the_runtime_works_in_its_own_thread_so_the_event_loop_stays_free(runner, runtime):
    asyncio.run(runner.predict(["good"], deadline=soon()))
    assert runtime.threads == {"kovar-runtime"}


def test_a_text_that_cannot_be_tokenized_is_refused_without_quoting_it(runner, caplog):
    with pytest.raises(RequestError) as refusal:
        asyncio.run(runner.predict(["garbled"], deadline=soon()))
    assert (refusal.value.status, refusal.value.code) == (422, "text_not_tokenizable")
    assert "garbled" not in str(refusal.value) + caplog.text


@pytest.mark.parametrize("place", range(3))
def test_the_text_of_a_request_that_cannot_be_tokenized_is_named(runner, place):
    texts = ["good", "bad", "fine"]
    texts[place] = "garbled"
    with pytest.raises(RequestError) as refusal:
        asyncio.run(runner.predict(texts, deadline=soon()))
    assert refusal.value.field == f"inputs[{place}]"


def test_a_dead_thread_fails_the_health_check_and_keeps_nobody_waiting(runner, runtime, caplog):
    runner.check()
    runtime.gate.clear()

    async def talk() -> list:
        texts = ["fatal", "good", "good " * 16]
        asked = [asyncio.ensure_future(runner.predict([text], deadline=soon())) for text in texts]
        await started(runtime)
        runtime.gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [one.code for one in asyncio.run(talk())] == ["closing"] * 3
    with pytest.raises(KovarError, match="runtime's thread is dead"):
        runner.check()
    with pytest.raises(RequestError) as refusal:
        asyncio.run(runner.predict(["good"], deadline=soon()))
    assert refusal.value.status == 503
    assert "the runtime's thread has died: SystemExit" in caplog.text


def test_a_dead_tokenizer_keeps_nobody_waiting_either(runner, runtime):
    def die(texts):
        raise SystemExit

    runtime.tokenize = die
    with pytest.raises(RequestError) as refusal:
        asyncio.run(runner.predict(["good"], deadline=soon()))
    assert refusal.value.code == "closing"
    with pytest.raises(KovarError, match="tokenizer's thread is dead"):
        runner.check()


def test_a_runtime_that_answers_fewer_texts_than_it_was_given_fails_them_alone(runner, runtime):
    run = runtime.run
    runtime.run = lambda batch: run(batch)[: 1 if len(batch) == 1 else 0]
    answer = labels(runner.predict(["good", "bad"], deadline=soon()))
    assert asyncio.run(answer) == ["positive", "negative"]
    runtime.run = lambda batch: []
    with pytest.raises(RequestError) as refusal:
        asyncio.run(runner.predict(["good"], deadline=soon()))
    assert refusal.value.code == "model_failed"
    runner.check()


def ask_poison(runner, times: int) -> None:
    for _ in range(times):
        with pytest.raises(RequestError, match="the model failed"):
            asyncio.run(runner.predict(["poison"], deadline=soon()))


def test_a_runtime_that_fails_on_every_text_fails_the_health_check(runner, runtime, caplog):
    def fail(batch):
        raise RuntimeError("CUDA error: an illegal memory access")

    runtime.run = fail
    ask_poison(runner, DOUBTFUL)
    runner.close()
    with pytest.raises(KovarError, match="fails on every text"):
        runner.check()
    assert "fails on every text: RuntimeError" in caplog.text


def test_a_runtime_that_works_again_passes_the_health_check(runner, runtime):
    run, runtime.run = runtime.run, lambda batch: []
    ask_poison(runner, DOUBTFUL)
    runtime.run = run
    asyncio.run(runner.predict(["good"], deadline=soon()))
    runner.close()
    runner.check()


def test_texts_that_fail_do_not_speak_against_the_runtime(runner):
    ask_poison(runner, 3 * DOUBTFUL)
    runner.close()
    runner.check()


def test_a_batch_that_never_ends_fails_the_health_check(runtime):
    now = [0.0]
    runner = BatchRunner(runtime, limits=LIMITS, max_queued=16, clock=lambda: now[0])
    runtime.gate.clear()

    async def talk():
        answer = asyncio.ensure_future(runner.predict(["one"], deadline=1000.0))
        await started(runtime)
        now[0] = 61.0
        with pytest.raises(KovarError, match="60 s"):
            runner.check()
        runtime.gate.set()
        await answer

    asyncio.run(talk())
    runner.close()


def test_closing_answers_what_waits(runtime):
    runner = BatchRunner(runtime, limits=LIMITS, max_queued=16)

    async def talk():
        answer = asyncio.ensure_future(runner.predict(["good"] * 9, deadline=soon()))
        await started(runtime)
        await asyncio.to_thread(runner.close)
        return await answer

    assert len(asyncio.run(talk())) == 9


def test_a_closed_runner_says_that_it_is_not_the_text(runtime):
    runner = BatchRunner(runtime, limits=LIMITS, max_queued=16)
    runner.close()
    with pytest.raises(RequestError) as refusal:
        asyncio.run(runner.predict(["good"], deadline=soon()))
    assert (refusal.value.status, refusal.value.code) == (503, "closing")


def test_a_text_that_is_tokenized_while_the_runner_closes_is_answered(runtime):
    runner = BatchRunner(runtime, limits=LIMITS, max_queued=16)
    closer = threading.Thread(target=runner.close)
    tokenize = runtime.tokenize

    def close_meanwhile(texts):
        closer.start()
        closer.join(0.05)
        return tokenize(texts)

    runtime.tokenize = close_meanwhile
    assert asyncio.run(labels(runner.predict(["good"], deadline=soon()))) == ["positive"]
    closer.join()


def test_token_ids_are_run_as_they_are_and_the_time_is_told(runner, runtime):
    encoded = runtime.tokenize(["good one", "bad"])
    answer = asyncio.run(runner.ask(encoded, deadline=soon(), run=runtime.run))
    assert [one.label for one in answer.outputs] == ["positive", "negative"]
    assert answer.num_tokens == 3
    timing = answer.timing
    assert min(timing.tokenize_s, timing.queue_s, timing.compute_s) >= 0


@pytest.mark.parametrize("num_tokens", [0, 17])
def test_token_ids_that_the_model_has_no_positions_for_are_refused(runner, runtime, num_tokens):
    rows = [Encoded((1,)), Encoded((1,) * num_tokens)]
    with pytest.raises(RequestError) as refusal:
        asyncio.run(runner.ask(rows, deadline=soon(), run=runtime.run))
    assert (refusal.value.status, refusal.value.code) == (422, "wrong_num_tokens")
    assert refusal.value.field == "inputs[1]"
    assert runner.num_queued == 0


def test_two_models_behind_one_runner_never_share_a_batch(runner, runtime):
    def embed(batch):
        return [(item.length, len(batch)) for item in batch]

    async def talk():
        runtime.gate.clear()
        first = asyncio.ensure_future(runner.predict(["one"], deadline=soon()))
        await started(runtime)
        asked = [runner.ask(["a b"], deadline=soon(), run=embed) for _ in range(2)]
        others = [asyncio.ensure_future(one) for one in (*asked, labels(first))]
        await until(lambda: runner.num_queued == 2)
        runtime.gate.set()
        return [answer.outputs for answer in (await asyncio.gather(*others))[:2]]

    assert asyncio.run(talk()) == [[(2, 2)], [(2, 2)]]


def test_an_idle_runner_refers_to_nothing_that_ran(runner):
    other = ScriptedRuntime()
    gone = weakref.ref(other)
    asyncio.run(runner.ask(["good"], deadline=soon(), run=other.run, tokenize=other.tokenize))
    del other
    asyncio.run(until(lambda: gc.collect() >= 0 and gone() is None))


def test_one_garbled_text_fails_alone_among_those_tokenized_with_it(runner, runtime):
    async def talk():
        texts = ["good", "garbled", "bad"]
        asked = (runner.predict([text], deadline=soon()) for text in texts)
        return await asyncio.gather(*asked, return_exceptions=True)

    good, garbled, bad = asyncio.run(talk())
    assert (good[0].label, garbled.code, bad[0].label) == (
        "positive",
        "text_not_tokenizable",
        "negative",
    )


def test_every_batch_is_told_with_its_padding(runtime):
    records: list[BatchRecord] = []
    runner = BatchRunner(runtime, limits=LIMITS, max_queued=16, on_batch=records.append)
    asyncio.run(runner.predict(["a b c", "a"], deadline=soon()))
    runner.close()
    assert [(one.num_rows, one.num_tokens, one.num_padded) for one in records] == [(2, 4, 6)]


def test_a_batch_is_told_with_what_it_ran_for(runtime):
    records: list[BatchRecord] = []
    runner = BatchRunner(runtime, limits=LIMITS, max_queued=16, on_batch=records.append)

    async def ask() -> None:
        await runner.ask(["a"], deadline=soon(), run=runtime.run, owner=("films", "2"))
        await runner.ask(["a"], deadline=soon(), run=runtime.embed, owner=("mails", "1"))

    asyncio.run(ask())
    runner.close()
    assert [one.owner for one in records] == [("films", "2"), ("mails", "1")]


def test_what_waits_is_told_apart_by_what_it_waits_for(runner, runtime):
    async def ask(text: str, owner: tuple[str, str]) -> None:
        await runner.ask([text, text], deadline=soon(), run=runtime.run, owner=owner)

    async def talk() -> None:
        runtime.gate.clear()
        asked = [asyncio.ensure_future(ask("a", ("films", "2")))]
        await started(runtime)
        asked.append(asyncio.ensure_future(ask("a b c", ("films", "2"))))
        asked.append(asyncio.ensure_future(ask("a", ("mails", "1"))))
        both = {("films", "2"): Queued(2, 6), ("mails", "1"): Queued(2, 2)}
        await until(lambda: runner.queued() == both)
        runtime.gate.set()
        await asyncio.gather(*asked)
        assert runner.queued() == {}

    asyncio.run(talk())


def test_the_load_tells_what_waits_and_how_fast_answers_come(runner, runtime):
    async def talk():
        runtime.gate.clear()
        first = asyncio.ensure_future(runner.predict(["a b c"], deadline=soon()))
        await started(runtime)
        second = asyncio.ensure_future(runner.predict(["a b"], deadline=soon()))
        await until(lambda: runner.load().queued_tokens == 2)
        assert runner.load().tokens_per_s is None
        runtime.gate.set()
        await asyncio.gather(first, second)

    asyncio.run(talk())
    load = runner.load()
    assert (load.queued_tokens, load.tokens_per_text) == (0, 2.5)
    assert load.tokens_per_s > 0 < load.arriving_tokens_per_s


REQUESTS = st.lists(st.lists(st.sampled_from(["good", "bad a b", "poison"]), min_size=1))


@given(REQUESTS, st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None)
def test_any_mix_of_requests_gets_its_own_answers_and_only_the_poisoned_fail(requests, parallel):
    runtime = ScriptedRuntime()
    limits = LIMITS.model_copy(update={"parallel": parallel})
    runner = BatchRunner(runtime, limits=limits, max_queued=10_000)

    async def talk():
        asked = (labels(runner.predict(texts, deadline=soon())) for texts in requests)
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(talk())
    runner.close()
    for texts, answer in zip(requests, answers, strict=True):
        if "poison" in texts:
            assert answer.code == "model_failed"
        else:
            assert answer == ["positive" if "good" in text else "negative" for text in texts]
    assert all(len(batch) <= 4 and len(batch) * max(batch) <= 64 for batch in runtime.batches)


def test_limits_that_cannot_hold_one_whole_text_are_refused(runtime):
    with pytest.raises(ValueError, match="at least 16"):
        BatchRunner(runtime, limits=BatchLimits(max_tokens=8), max_queued=16)
