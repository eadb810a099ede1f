"""When snapshots are taken: a crash never repeats more than the interval, however slow the disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kovar.training.snapshot_plan import SnapshotPlan

PLANS = st.builds(SnapshotPlan, st.integers(1, 300), st.sampled_from(["cpu", "cuda"]))


@given(plan=PLANS, writes=st.lists(st.integers(0, 400), min_size=1), start=st.integers(0, 9))
def test_whatever_a_write_takes_no_crash_repeats_more_than_the_interval(plan, writes, start):
    durable, ready = start, 0
    newest = settled = start
    for step in range(start + 1, start + 4 * plan.interval):
        if plan.must_settle(step, newest=newest, settled=settled):
            durable = settled = newest
        assert step - durable <= plan.interval
        if step >= ready:
            durable = newest
        if plan.is_due(step, newest=newest):
            durable = settled = newest  # a save waits for the one before
            newest, ready = step, step + writes[step % len(writes)]


@given(plan=PLANS, stop=st.integers(1, 900), again=st.integers(0, 900))
def test_a_run_that_goes_on_takes_its_snapshots_where_an_undisturbed_one_does(plan, stop, again):
    undisturbed = snapshots(plan, 0, 1000)
    resumed_from = max((step for step in undisturbed if step <= stop), default=0)
    assert snapshots(plan, resumed_from, 1000) == [
        step for step in undisturbed if step > resumed_from
    ]
    told_to_end = snapshots(plan, again, 1000)
    assert told_to_end == [step for step in undisturbed if step > again]


def snapshots(plan, newest, num_steps):
    taken = []
    for step in range(newest + 1, num_steps):
        if plan.is_due(step, newest=newest):
            taken.append(newest := step)
    return taken


def test_short_intervals_are_taken_as_they_are_and_a_gpu_shares_long_ones_by_half():
    assert snapshots(SnapshotPlan(10, "cuda"), 0, 31) == [10, 20, 30]
    assert snapshots(SnapshotPlan(50, "cpu"), 0, 101) == [45, 90]
    assert snapshots(SnapshotPlan(50, "cuda"), 0, 101) == [25, 50, 75, 100]


@given(plan=PLANS)
def test_training_waits_only_for_writes_that_take_longer_than_the_lead(plan):
    newest, settled = plan.period, 0
    waits_at = next(
        step
        for step in range(newest + 1, newest + plan.interval + 2)
        if plan.must_settle(step, newest=newest, settled=settled)
    )
    assert waits_at == newest + plan.lead + 1
    assert plan.period >= plan.lead  # a save need not wait for one that was done within the lead


def test_a_snapshot_that_was_put_off_is_due_until_it_is_taken():
    plan = SnapshotPlan(10, "cpu")
    assert [plan.is_due(step, newest=0) for step in (9, 10, 11, 12)] == [False, True, True, True]
    assert not plan.is_due(13, newest=12)
    assert plan.is_due(20, newest=12)
