"""A real Serve follows its traffic as the rehearsal says."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from kovar.serving.autoscaling.binding import (
    autoscaling_options,
    quiet_metrics_interval,
    rules_of,
)
from kovar.serving.autoscaling.replay import ReplicaSpeed, replay
from kovar.serving.autoscaling.trace import Trace
from kovar.serving.spec import Autoscaling, ReplicaRange
from sleepy_model import BATCH_S, TOKEN_S, TOKENS_PER_TEXT, SleepyModel

pytestmark = pytest.mark.ray

REPLICAS = ReplicaRange(min=1, max=4)
AUTOSCALING = Autoscaling(
    latency_objective_s=1.0, upscale_delay_s=2.0, downscale_delay_s=6.0, to_zero_delay_s=60.0
)
TEXTS = [1] * 4 + [20] * 12 + [1] * 10
"""Texts in each second; one replica answers ten."""

# How far a replica's start, which waits for this machine, may shift what is decided.
SHIFT_S = 6
PATIENCE_S = 60


@pytest.fixture
def handle(ray_session):
    from ray import serve

    with quiet_metrics_interval():
        deployment = serve.deployment(SleepyModel).options(
            name="sleepy",
            ray_actor_options={"num_cpus": 0.1},
            max_ongoing_requests=1000,
            autoscaling_config=autoscaling_options(REPLICAS, AUTOSCALING),
        )
    yield serve.run(deployment.bind(), name="sleepy", route_prefix=None)
    serve.shutdown()  # whoever comes next starts it on ports of its own


def num_wanted() -> int:
    """Replicas that run or start."""
    from ray import serve

    (deployment,) = serve.status().applications["sleepy"].deployments.values()
    states = deployment.replica_states
    return states.get("RUNNING", 0) + states.get("STARTING", 0)


def drive(handle) -> tuple[list[int], list[str]]:
    """Send the texts; return the replicas wanted in each second, and the answers."""
    answers, wanted = [], []
    with ThreadPoolExecutor(64) as pool:
        begin = time.monotonic()
        for second, num_texts in enumerate(TEXTS):
            Event().wait(max(0.0, begin + second - time.monotonic()))
            answers += [pool.submit(lambda: handle.remote("z").result()) for _ in range(num_texts)]
            wanted.append(num_wanted())
    return wanted, [answer.result() for answer in answers]


def test_a_real_run_wants_the_replicas_of_the_rehearsal_but_for_one(handle):
    wanted, answers = drive(handle)
    assert answers == ["asleep"] * sum(TEXTS)
    trace = Trace([float(n) for n in TEXTS], [float(n) * TOKENS_PER_TEXT for n in TEXTS])
    speed = ReplicaSpeed(1 / TOKEN_S, BATCH_S + TOKENS_PER_TEXT * TOKEN_S, start_s=4.0)
    rehearsed = replay(trace, rules_of(REPLICAS, AUTOSCALING), speed).target
    assert max(rehearsed) == 3
    for second, number in enumerate(wanted):
        near = rehearsed[max(0, second - SHIFT_S) : second + SHIFT_S + 1]
        assert min(abs(number - expected) for expected in near) <= 1, (wanted, rehearsed)
    assert max(wanted) >= 2
    assert any(num_wanted() == 1 or Event().wait(1) for _ in range(PATIENCE_S))
