"""An elastic run on Ray Train that can have more workers while it trains."""

import threading
from contextlib import contextmanager

import pytest
import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    ResourceRequestPriority,
    get_or_create_autoscaling_coordinator,
)

from kovar.events import read_events
from kovar.training.history import read_history
from tiny_run import run_spec, write_spec
from tiny_version import settings_in

pytestmark = pytest.mark.ray

ELASTIC = {"num_workers": {"min": 1, "max": 2}, "worker": {"kind": "cpu", "cpus": 1}}
LONG = {
    "epochs": 160,
    "max_tokens": 128,
    "learning_rate": 0.002,
    "checkpoint_every": 200,
    "evaluate_every": 5000,
}


@contextmanager
def other_work_until_a_checkpoint(runs_dir, *, num_cpus):
    """Reserve CPUs, as another run does, until the run in `runs_dir` has saved a checkpoint."""
    coordinator = get_or_create_autoscaling_coordinator()
    wanted = {"expire_after_s": 600, "priority": ResourceRequestPriority.HIGH}
    bundles = [{"CPU": 1}] * num_cpus
    ray.get(coordinator.request_resources.remote("other work", bundles, **wanted))
    ended = threading.Event()

    def watch():
        while not ended.wait(0.05):
            events = (e for log in runs_dir.glob("*/events.jsonl") for e in read_events(log))
            if any(event["event"] == "checkpoint" for event in events):
                break
        ray.get(coordinator.cancel_request.remote("other work"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def steps_of(result):
    return {e["step"]: e for e in read_events(result.folder.events) if e["event"] == "step"}


def test_a_run_that_can_have_more_workers_gets_them_and_repeats_nothing(ray_session, tmp_path):
    for name in ("elastic", "alone"):
        (tmp_path / name).mkdir()
    settings = settings_in(tmp_path / "elastic").model_copy(update={"resize_interval_s": 0.2})
    path = write_spec(tmp_path / "elastic", resources=ELASTIC, training=LONG)
    with other_work_until_a_checkpoint(settings.runs_dir, num_cpus=3):
        elastic = run_spec(path, settings, in_process=False)
    first, last = read_history(elastic.folder).attempts
    assert (first.world_size, last.world_size) == (1, 2)
    assert (first.outcome, first.cause) == ("preempted", "2 instead of 1 workers go on")
    assert last.resumed_from == first.last_step
    alone = run_spec(write_spec(tmp_path / "alone", training=LONG), settings_in(tmp_path / "alone"))
    steps, expected = steps_of(elastic), steps_of(alone)
    assert set(steps) - set(expected) <= {first.last_step}
    for step, event in expected.items():
        assert steps[step]["learning_rate"] == event["learning_rate"]
    for count in ("tokens", "targets"):
        assert sum(e[count] for e in steps.values()) == sum(e[count] for e in expected.values())
