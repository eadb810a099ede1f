from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.serving.autoscaling import policy
from kovar.serving.autoscaling.binding import reported, rules_of
from kovar.serving.autoscaling.policy import (
    Extreme,
    LatencyPolicy,
    Rules,
    Traffic,
    share_of_use,
    wanted_replicas,
)
from kovar.serving.spec import Autoscaling, ReplicaRange

RULES = {
    "min_replicas": 1,
    "max_replicas": 10,
    "latency_objective_s": 0.5,
    "upscale_delay_s": 5.0,
    "downscale_delay_s": 60.0,
    "to_zero_delay_s": 120.0,
}
BUSY = Traffic(8500.0, 0.0, tokens_per_s=1000.0, light_s=0.01)


def run(traffic_at, seconds: int, *, target: int = 1, **changed) -> list[int]:
    """Follow traffic for some seconds; replicas start at once."""
    decided, autoscaler = [], LatencyPolicy(**RULES | changed)
    for second in range(seconds):
        target = autoscaler.decide(second, traffic_at(second), running=target, target=target)
        decided.append(target)
    return decided


def test_the_number_of_replicas_leaves_each_its_share_of_spare_speed():
    assert wanted_replicas(BUSY, Rules(**RULES), running=1) == 10  # 8.5 at 85 % use


def test_a_shorter_objective_asks_for_more_replicas():
    assert share_of_use(0.01, 0.5) == 0.85
    assert share_of_use(0.05, 0.2) == 0.5
    assert share_of_use(1.0, 0.2) == 0.3


def test_a_backlog_asks_for_replicas_that_drain_it_although_nothing_arrives():
    traffic = Traffic(0.0, 60_500.0, tokens_per_s=1000.0, light_s=0.01)
    assert wanted_replicas(traffic, Rules(**RULES), running=1) == 2


def test_an_unknown_speed_changes_nothing_and_no_traffic_wants_nothing():
    assert wanted_replicas(Traffic(100.0, 0.0), Rules(**RULES), running=1) is None
    assert wanted_replicas(Traffic(0.0, 0.0), Rules(**RULES), running=1) == 0


def test_more_replicas_come_after_the_delay_and_no_sooner():
    decided = run(lambda _: BUSY, 8)
    assert decided[:5] == [1] * 5
    assert decided[5] == 10


def test_a_burst_shorter_than_the_delay_changes_nothing():
    decided = run(lambda second: BUSY if second % 10 < 4 else Traffic(100.0, 0.0, 1000.0, 0.01), 60)
    assert set(decided) == {1}


def test_traffic_that_swings_faster_than_the_downscale_delay_never_flaps():
    def swinging(second):
        return Traffic(4000.0 if second // 25 % 2 else 500.0, 0.0, 1000.0, 0.01)

    decided = run(swinging, 600)
    assert decided == sorted(decided)


def test_replicas_go_once_fewer_were_enough_through_the_whole_delay():
    decided = run(lambda second: BUSY if second < 20 else Traffic(500.0, 0.0, 1000.0, 0.01), 120)
    assert decided[78] == 10
    assert decided[80] == 1


def test_traffic_at_the_edge_of_a_number_keeps_the_higher_one():
    # Two replicas bear 1,700 tokens/s; they are given back below 1,478.
    decided = run(lambda second: Traffic(1750.0 if second < 100 else 1600.0, 0, 1000.0, 0.01), 400)
    assert decided[50] == decided[-1] == 3


def test_the_last_replica_goes_after_a_delay_of_its_own():
    def ends(second):
        return BUSY if second < 20 else Traffic(0.0, 0.0, 1000.0, 0.01)

    decided = run(ends, 200, min_replicas=0)
    assert decided[100] == 1
    assert decided[138] == 1
    assert decided[141] == 0


def test_a_replica_that_serve_starts_from_zero_stays_although_the_client_gave_up():
    autoscaler = LatencyPolicy(**RULES | {"min_replicas": 0})
    target = 1
    for second in range(200):
        target = autoscaler.decide(second, Traffic(0.0, 0.0), running=target, target=target)
    assert target == 0
    assert autoscaler.decide(201, Traffic(0.0, 0.0), running=0, target=1) == 1
    assert autoscaler.decide(250, Traffic(0.0, 0.0), running=1, target=1) == 1


def test_the_speed_stays_known_when_no_replica_reports():
    autoscaler = LatencyPolicy(**RULES)
    autoscaler.decide(0, BUSY, running=1, target=1)
    for second in range(1, 8):
        waiting = Traffic(0.0, 60_000.0)
        decided = autoscaler.decide(second, waiting, running=1, target=1)
    assert decided == 2


TRAFFIC = st.builds(
    Traffic,
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.none() | st.floats(1, 1e5),
    st.none() | st.floats(0, 10),
)


@given(st.lists(TRAFFIC, max_size=60), st.integers(0, 3), st.integers(3, 8))
def test_the_bounds_hold_under_any_traffic(traffic, least, most):
    bounds = {"min_replicas": least, "max_replicas": most, "upscale_delay_s": 1.0}
    decided = run(traffic.__getitem__, len(traffic), target=3, **bounds, downscale_delay_s=2.0)
    assert all(least <= number <= most for number in decided)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.integers(1, 10))
def test_the_extreme_of_a_window_is_that_of_its_values(values, window):
    largest, smallest = Extreme(window, sign=1), Extreme(window, sign=-1)
    for now, value in enumerate(values):
        largest.add(now, value)
        smallest.add(now, value)
        seen = values[max(0, now - window) : now + 1]
        known = now >= window
        assert largest.value(now) == (max(seen) if known else None)
        assert smallest.value(now) == (min(seen) if known else None)


def test_serve_is_answered_from_what_the_replicas_reported_last():
    from kovar.inference import Load

    load = reported(Load(30_000, 2000.0, 1000.0, 0.01, 20.0))
    metrics = {
        name: {number: [SimpleNamespace(value=0.0), SimpleNamespace(value=value)]}
        for number in range(2)
        for name, value in load.items()
    }
    traffic = policy.traffic_of(metrics, 5.0)
    assert traffic == Traffic(2000.0, 30_100.0, 1000.0, 0.01)


def test_the_policy_needs_the_standard_library_alone():
    program = (
        f"import runpy, sys; runpy.run_path({policy.__file__!r}); "
        "assert not {'kovar', 'ray', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_policy_comes_back_from_serves_controller_as_it_was():
    from ray.serve.config import AutoscalingPolicy

    rules = rules_of(ReplicaRange(min=0, max=3), Autoscaling())
    sent = AutoscalingPolicy(
        policy_function="kovar.serving.autoscaling.policy:LatencyPolicy",
        policy_kwargs={name: getattr(rules, name) for name in Rules.__slots__},
    )
    made = sent.get_policy()(**sent.policy_kwargs)
    context = SimpleNamespace(
        raw_metrics=None,
        total_queued_requests=0.0,
        current_time=1e9,
        current_num_replicas=1,
        target_num_replicas=2,
    )
    assert made(context) == (2, {})
    assert made.rules.to_zero_delay_s == pytest.approx(300.0)
