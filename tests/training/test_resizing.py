"""An elastic run on Ray Train that can have more workers while it trains."""

import threading
from contextlib import contextmanager

import pytest
import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    ResourceRequestPriority,
    get_or_create_autoscaling_coordinator,
)

from doomed import tiny_task
from kovar.events import read_events
from kovar.training.history import read_history
from kovar.training.schedule import plan_steps
from tiny_run import run_spec, write_spec
from tiny_version import settings_in

pytestmark = pytest.mark.ray

ELASTIC = {"num_workers": {"min": 1, "max": 2}, "worker": {"kind": "cpu", "cpus": 1}}
LONG = {
    "epochs": 80,
    "max_tokens": 128,
    "learning_rate": 0.002,
    "checkpoint_every": 20,
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


def planned(folder):
    """Return the rows' lengths and the steps that the spec plans for any number of workers."""
    task = tiny_task(folder, **LONG)
    rows = task.dataset.open("train")
    facts = {"fingerprint": task.dataset.fingerprint, "max_length": 32}
    return rows.lengths, plan_steps(rows.lengths, settings=task.spec.training, **facts)


def test_a_run_that_can_have_more_workers_gets_them_and_repeats_nothing(ray_session, tmp_path):
    path = write_spec(tmp_path, resources=ELASTIC, training=LONG)
    settings = settings_in(tmp_path).model_copy(update={"resize_interval_s": 0.2})
    with other_work_until_a_checkpoint(settings.runs_dir, num_cpus=3):
        result = run_spec(path, settings, in_process=False)
    first, last = read_history(result.folder).attempts
    assert (first.world_size, last.world_size) == (1, 2)
    assert (first.outcome, first.cause) == ("preempted", "2 instead of 1 workers go on")
    assert last.resumed_from == first.last_step
    lengths, plan = planned(tmp_path)
    steps = [e for e in read_events(result.folder.events) if e["event"] == "step"]
    assert all(e["learning_rate"] == plan[e["step"] - 1].learning_rate for e in steps)
    assert sum(e["tokens"] for e in steps) == 80 * lengths.sum()
    assert sum(e["targets"] for e in steps) == 80 * len(lengths)
