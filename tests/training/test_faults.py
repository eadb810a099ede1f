"""A run whose workers die, hang or lose their disk ends with the weights of an undisturbed one."""

from __future__ import annotations

import json
import random
import signal

import pytest

from doomed import FULL_DISK, attempt, newest_step, tiny_task
from kovar.events import read_events
from kovar.training.folder import RunFolder

INTERVAL = 10


def weights(task):
    return json.loads(RunFolder(task.folder).metrics.read_text())["weights_digest"]


def told(task, kind):
    return [e for e in read_events(RunFolder(task.folder).events) if e["event"] == kind]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def undisturbed(folder):
    """Return a function that trains without faults, once for each number of ranks."""
    found = {}

    def train(world_size):
        if world_size not in found:
            task = tiny_task(folder, run=f"undisturbed-{world_size}", checkpoint_every=INTERVAL)
            assert (
                attempt(task, folder / f"store-{world_size}", world_size=world_size)
                == [0] * world_size
            )
            found[world_size] = weights(task)
        return found[world_size]

    return train


@pytest.mark.parametrize(("world_size", "num_kills"), [(1, 10), (2, 3)])
def test_a_run_killed_at_random_steps_ends_with_the_same_bits(
    folder, undisturbed, world_size, num_kills
):
    task = tiny_task(folder, run=f"killed-{world_size}", checkpoint_every=INTERVAL)
    draw = random.Random(world_size)
    steps = sorted(draw.sample(range(1, 60), num_kills))
    for number, step in enumerate(steps):
        death = {draw.randrange(world_size): (step, signal.SIGKILL)}
        store = folder / f"killed-{world_size}-{number}"
        assert -signal.SIGKILL in attempt(task, store, world_size=world_size, deaths=death)
        acknowledged = max((e["step"] for e in told(task, "checkpoint")), default=0)
        assert newest_step(task.folder) >= max(acknowledged, step - INTERVAL)
    assert attempt(task, folder / f"last-{world_size}", world_size=world_size) == [0] * world_size
    assert weights(task) == undisturbed(world_size)
    assert {path.name for path in task.folder.iterdir()} == {
        "attempts", "checkpoints", "events.jsonl", "metrics.json", "model", "tensorboard",
    }  # fmt: skip
    assert all(p.name.startswith("step-") for p in (task.folder / "checkpoints").iterdir())


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_worker_that_is_told_to_end_saves_and_nothing_is_repeated(
    folder, undisturbed, world_size
):
    task = tiny_task(folder, run=f"told-{world_size}", checkpoint_every=INTERVAL)
    told_rank = {world_size - 1: (13, signal.SIGTERM)}
    store = folder / f"told-{world_size}-store"
    codes = attempt(task, store, world_size=world_size, deaths=told_rank)
    assert codes == [1] * world_size  # PreemptedError: Ray Train's binding takes it
    (preempted,) = told(task, "preempted")
    assert 13 < preempted["step"] <= 15
    again = folder / f"told-again-{world_size}"
    assert attempt(task, again, world_size=world_size) == [0] * world_size
    assert told(task, "resumed")[0]["step"] == preempted["step"]
    assert weights(task) == undisturbed(world_size)


def test_a_full_disk_is_an_error_that_leaves_the_checkpoint_before(folder, undisturbed):
    task = tiny_task(folder, run="full", checkpoint_every=INTERVAL)
    assert attempt(task, folder / "full-store", deaths={0: (15, FULL_DISK)}) == [0]
    (failed,) = told(task, "failed")
    assert failed["error"] == "CheckpointError"
    assert "step 20 could not be written" in failed["message"]
    assert "too large" in failed["message"]
    assert [p.name for p in (task.folder / "checkpoints").iterdir()] == ["step-00000010"]
    assert attempt(task, folder / "full-store") == [0]
    assert weights(task) == undisturbed(1)


def test_fewer_and_more_workers_see_the_same_batches_at_the_same_rates(folder, undisturbed):
    undisturbed(2)
    whole = tiny_task(folder, run="undisturbed-2", checkpoint_every=INTERVAL)
    task = tiny_task(folder, run="elastic", checkpoint_every=INTERVAL)
    for number, (world_size, step) in enumerate([(2, 13), (1, 33), (3, 43)]):
        deaths = {0: (step, signal.SIGTERM)}
        attempt(task, folder / f"elastic-{number}", world_size=world_size, deaths=deaths)
    assert attempt(task, folder / "elastic-last", world_size=2) == [0, 0]
    assert [e["world_size"] for e in told(task, "started") if e["rank"] == 0] == [2, 1, 3, 2]
    expected = {e["step"]: facts(e) for e in told(whole, "step")}
    assert [e["step"] for e in told(task, "step") if e["step"] % 10 == 0] == list(expected)[:-1]
    assert {e["step"]: facts(e)[0] for e in told(task, "step") if e["step"] in expected} == {
        step: rate for step, (rate, _) in expected.items()
    }
    assert sum(e["targets"] for e in told(task, "step")) == 8 * 96


def facts(event):
    return event["learning_rate"], event["tokens"]
