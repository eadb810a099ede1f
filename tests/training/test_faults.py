"""A run whose workers die, hang or lose their disk ends with the weights of an undisturbed one."""

from __future__ import annotations

import json
import random
import signal

import pytest

from doomed import attempt, newest_step, tiny_task
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


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_killed_at_ten_random_steps_ends_with_the_same_bits(folder, undisturbed, world_size):
    task = tiny_task(folder, run=f"killed-{world_size}", checkpoint_every=INTERVAL)
    draw = random.Random(world_size)
    steps = sorted(draw.sample(range(1, 60), 10))
    for number, step in enumerate(steps):
        death = {draw.randrange(world_size): (step, signal.SIGKILL)}
        store = folder / f"killed-{world_size}-{number}"
        assert -signal.SIGKILL in attempt(task, store, world_size=world_size, deaths=death)
        acknowledged = max((e["step"] for e in told(task, "checkpoint")), default=0)
        assert newest_step(task.folder) >= acknowledged >= step - 2 * INTERVAL
    assert attempt(task, folder / f"last-{world_size}", world_size=world_size) == [0] * world_size
    assert weights(task) == undisturbed(world_size)
    assert {path.name for path in task.folder.iterdir()} == {
        "attempts", "checkpoints", "events.jsonl", "metrics.json", "model", "tensorboard",
    }  # fmt: skip
    assert all(p.name.startswith("step-") for p in (task.folder / "checkpoints").iterdir())
