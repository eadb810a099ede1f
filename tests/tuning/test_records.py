"""From the ledger to the records that reports read."""

import pytest

from kovar.tuning.records import records_of
from tiny_conductor import Clock, conductor_in, finish, report, start
from tiny_sweep import sweep_spec

POINTS = [{"x": 1}]
SPEC = sweep_spec({"x": {"kind": "grid", "values": [1]}}, metric="accuracy", mode="max")
USAGE = {"num_steps": 10, "tokens": 100, "train_seconds": 4.0, "peak_memory_bytes": 7}


def record_of(conductor, clock, *, select="best"):
    spec = SPEC.model_copy(update={"select": select})
    (record,) = records_of(conductor.state, spec, price=conductor.price_of, now=clock.now)
    return record


def test_what_the_stays_used_is_added_up(tmp_path):
    clock = Clock()
    conductor = conductor_in(tmp_path, POINTS, clock=clock)
    start(conductor)
    report(conductor, 1, 10, 0.5, usage=USAGE, node="a", chip="cpu", precision="fp32")
    clock.now += 100
    conductor.write("interrupted", trial=1, reason="its process died", lost_node=False)
    clock.now += 900  # between two stays nothing is held
    conductor.write("started", trial=1)
    report(conductor, 1, 20, 0.7, usage=USAGE | {"num_steps": 20, "peak_memory_bytes": 5}, node="b")
    clock.now += 20
    finish(conductor, 1, 0.8)
    record = record_of(conductor, clock)
    assert (record.tokens, record.train_seconds, record.num_steps) == (200, 8.0, 20)
    assert (record.wall_seconds, record.peak_memory_bytes, record.cost) == (120.0, 7, 1.2)
    assert [(stay.node, stay.outcome) for stay in record.stays] == [
        ("a", "interrupted"),
        ("b", "finished"),
    ]
    assert (record.metrics, record.precision) == ({"accuracy": 0.8}, "fp32")
    assert record.incidents == ("its process died",)


@pytest.mark.parametrize(("select", "counts"), [("best", 0.9), ("last", 0.4)])
def test_of_a_trial_that_was_stopped_the_best_or_the_last_counts(tmp_path, select, counts):
    clock = Clock()
    conductor = conductor_in(tmp_path, POINTS, clock=clock)
    start(conductor)
    report(conductor, 1, 10, 0.9)
    report(conductor, 1, 20, 0.4, stop=True)
    conductor.ended(1, "stopped")
    assert record_of(conductor, clock, select=select).metrics == {"accuracy": counts}


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_trial_that_diverged_or_failed_has_no_score(tmp_path, status):
    clock = Clock()
    conductor = conductor_in(tmp_path, POINTS, clock=clock)
    start(conductor)
    report(conductor, 1, 10, 0.9)
    conductor.ended(1, status, "why")
    record = record_of(conductor, clock)
    assert (record.status, record.reason, record.metrics) == (status, "why", {})
    assert len(record.history) == 1


def test_an_end_that_the_driver_missed_is_counted_once(tmp_path):
    clock = Clock()
    first = conductor_in(tmp_path, POINTS, clock=clock)
    start(first)
    report(first, 1, 10, 0.9, usage=USAGE)
    again = conductor_in(tmp_path, POINTS, clock=clock)
    start(again)
    end = {"status": "finished", "reason": None, "metrics": {"accuracy": 0.9}}
    again.write("reported", trial=1, stop=False, end=end | {"usage": USAGE | {"tokens": 150}})
    again.ended(1, "finished")
    assert record_of(again, clock).tokens == 150


def test_a_trial_that_runs_counts_as_unfinished(tmp_path):
    clock = Clock()
    conductor = conductor_in(tmp_path, POINTS, clock=clock)
    start(conductor)
    clock.now += 36
    record = record_of(conductor, clock)
    assert (record.status, record.wall_seconds) == ("unfinished", 36.0)
