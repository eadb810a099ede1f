import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.inference.batcher import CPU_PADDING_TOKENS, Batcher, BatchLimits, Item

LIMITS = BatchLimits(max_rows=4, max_tokens=64)


def waiting(*lengths: int, deadline: float = 100.0) -> list[Item[int]]:
    return [Item(length, deadline, index) for index, length in enumerate(lengths)]


def queue(items: list[Item[int]], limits: BatchLimits = LIMITS) -> Batcher[int]:
    batcher: Batcher[int] = Batcher(limits)
    batcher.add(items)
    return batcher


def payloads(items: list[Item[int]]) -> list[int]:
    return [item.payload for item in items]


def test_an_idle_runtime_takes_a_single_text_at_once():
    assert payloads(queue(waiting(8)).take(0.0).batch) == [0]


def test_texts_of_one_length_run_in_order_of_arrival():
    batcher = queue(waiting(8, 8, 8, 8, 8, 8))
    assert payloads(batcher.take(0.0).batch) == [0, 1, 2, 3]
    assert payloads(batcher.take(0.0).batch) == [4, 5]


def test_texts_of_like_length_run_together_and_long_ones_apart():
    batcher = queue(waiting(16, 60, 15, 17))
    assert sorted(payloads(batcher.take(0.0).batch)) == [0, 2, 3]
    assert payloads(batcher.take(0.0).batch) == [1]


def test_padding_never_costs_more_than_another_batch():
    limits = BatchLimits(max_rows=64, max_tokens=4096)
    batcher = queue(waiting(40, *[20] * 10), limits)
    batch = batcher.take(0.0).batch
    padded = len(batch) * max(item.length for item in batch)
    assert 0 < padded - sum(item.length for item in batch) <= CPU_PADDING_TOKENS


def test_rows_that_a_runtime_pads_to_the_same_length_are_of_like_length():
    batcher: Batcher[int] = Batcher(
        BatchLimits(max_rows=64, max_tokens=4096, max_padding_tokens=0), length_step=8
    )
    batcher.add(waiting(24, 17, 16, 25, 20))
    assert sorted(payloads(batcher.take(0.0).batch)) == [0, 1, 4]


def test_the_oldest_text_runs_next_although_others_fit_better():
    batcher = queue(waiting(60, 8, 8, 8))
    assert payloads(batcher.take(0.0).batch)[0] == 0


def test_a_text_that_fills_a_whole_batch_runs_alone():
    assert payloads(queue(waiting(64, 64)).take(0.0).batch) == [0]


def test_a_text_longer_than_a_batch_is_refused_and_nothing_is_queued():
    batcher: Batcher[int] = Batcher(LIMITS)
    with pytest.raises(ValueError, match="65 tokens"):
        batcher.add(waiting(8, 65))
    assert len(batcher) == 0


def test_an_expired_text_is_handed_back_and_does_not_run():
    batcher = queue([Item(8, 1.0, 0), Item(8, 3.0, 1)])
    taken = batcher.take(2.0)
    assert payloads(taken.expired) == [0]
    assert payloads(taken.batch) == [1]


def test_a_removed_text_does_not_run():
    items = waiting(8, 8)
    batcher = queue(items)
    batcher.remove(items[:1])
    assert payloads(batcher.take(0.0).batch) == [1]


def test_texts_that_different_models_run_never_share_a_batch():
    batcher: Batcher[int] = Batcher(LIMITS)
    batcher.add([Item(8, 100.0, number, group=number % 2) for number in range(6)])
    assert payloads(batcher.take(0.0).batch) == [0, 2, 4]
    assert payloads(batcher.take(0.0).batch) == [1, 3, 5]


def test_padding_that_a_gpu_does_not_feel_fills_the_batch():
    limits = BatchLimits(max_rows=64, max_tokens=4096).on("cuda")
    assert len(queue(waiting(100, *[5] * 30), limits).take(0.0).batch) == 31


def test_the_tokens_that_wait_are_counted():
    items = waiting(8, 60, 8)
    batcher = queue(items)
    batcher.remove([items[0], items[0]])
    assert batcher.num_tokens == 68
    batcher.take(0.0)
    assert batcher.num_tokens == 8


LENGTHS = st.integers(min_value=1, max_value=64)
DEADLINES = st.floats(min_value=0.0, max_value=10.0)
ARRIVALS = st.lists(st.lists(st.tuples(LENGTHS, DEADLINES), max_size=12), max_size=6)
SIZES = st.builds(
    BatchLimits, max_rows=st.integers(1, 8), max_tokens=st.integers(min_value=64, max_value=256)
)


@given(ARRIVALS, SIZES, st.sampled_from([1, 8]))
def test_limits_hold_the_oldest_runs_and_nothing_is_lost_run_twice_or_run_late(
    arrivals, limits, step
):
    batcher: Batcher[int] = Batcher(limits, length_step=step)
    alive: dict[int, Item[int]] = {}
    numbers = iter(range(1000))
    now = 0.0
    while arrivals or len(batcher):
        added = (
            [Item(length, end, next(numbers)) for length, end in arrivals.pop(0)]
            if arrivals
            else []
        )
        batcher.add(added)
        alive |= {item.payload: item for item in added}
        now += 1.0
        taken = batcher.take(now)
        for item in taken.expired:
            assert alive.pop(item.payload).deadline <= now
        assert bool(taken.batch) == bool(alive), "work-conserving"
        if taken.batch:
            longest = batcher.padded(max(item.length for item in taken.batch))
            assert len(taken.batch) <= limits.max_rows
            assert len(taken.batch) * longest <= limits.max_tokens
            assert min(alive) in payloads(taken.batch)
        for item in taken.batch:
            assert alive.pop(item.payload).deadline > now
    assert not alive


@given(st.lists(LENGTHS, min_size=1, max_size=40), st.data(), SIZES)
def test_a_text_waits_for_at_most_as_many_batches_as_there_are_older_texts(ahead, data, limits):
    batcher = queue(waiting(*ahead), limits)
    ours = Item(data.draw(LENGTHS), 1e9, -1)
    batcher.add([ours])
    for _ in range(len(ahead)):
        if ours in batcher.take(0.0).batch:
            return
        # Texts that fit the next batch better keep coming.
        batcher.add(waiting(*data.draw(st.lists(LENGTHS, max_size=8)), deadline=1e9))
    assert ours in batcher.take(0.0).batch
