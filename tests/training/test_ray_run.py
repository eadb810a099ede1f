"""Runs on Ray Train with two workers: the same bits every time, killed or not."""

import hashlib
import os
import signal
import threading

import pytest

from kovar.errors import RunError, UserError
from kovar.events import read_events
from kovar.training.history import read_history
from tiny_run import run_spec, write_spec
from tiny_version import settings_in

pytestmark = pytest.mark.ray

TWO_WORKERS = {"num_workers": 2, "worker": {"kind": "cpu", "cpus": 1}}
LONG = {
    "epochs": 40,
    "max_tokens": 128,
    "learning_rate": 0.002,
    "checkpoint_every": 10,
    "evaluate_every": 500,
}


def weights_of(result):
    return hashlib.sha256((result.folder.model / "model.safetensors").read_bytes()).hexdigest()


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(ray_session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    path = write_spec(folder, resources=TWO_WORKERS, training=LONG)
    return run_spec(path, settings_in(folder), in_process=False)


def kill_a_worker_after(events, *, checkpoint, rank, killed, sent=signal.SIGKILL):
    """Wait for a checkpoint, then send a signal to one worker by its pid."""
    while not killed.is_set():
        seen = list(read_events(events))
        if any(e["event"] == "checkpoint" and e["step"] >= checkpoint for e in seen):
            pids = [e["pid"] for e in seen if e["event"] == "started" and e["rank"] == rank]
            os.kill(pids[0], sent)
            killed.set()
        killed.wait(0.02)


def test_two_workers_train_one_model(undisturbed):
    started = [e for e in read_events(undisturbed.folder.events) if e["event"] == "started"]
    assert {(e["rank"], e["world_size"]) for e in started} == {(0, 2), (1, 2)}
    assert undisturbed.metrics["accuracy"] >= 0.9


def test_the_log_tells_when_the_workers_waited_for_hardware_and_when_they_had_it(undisturbed):
    events = list(read_events(undisturbed.folder.events))
    kinds = [e["event"] for e in events if e["rank"] <= 0]
    assert kinds[2:6] == ["planned", "placing", "placed", "started"]
    (placed,) = [e for e in events if e["event"] == "placed"]
    assert placed["num_workers"] == 2
    assert len(placed["nodes"]) == 1


def test_another_run_with_as_many_workers_ends_with_the_same_weights(undisturbed, tmp_path):
    path = write_spec(tmp_path, resources=TWO_WORKERS, training=LONG)
    again = run_spec(path, settings_in(tmp_path), in_process=False)
    assert weights_of(again) == weights_of(undisturbed)
    assert again.version.digest == undisturbed.version.digest


def run_under_fire(folder, undisturbed, *, rank, sent, hang_timeout_s=120.0, **changes):
    """Run the same spec, and send a signal to a worker after step 30; return the result."""
    path = write_spec(folder, resources=TWO_WORKERS, training=LONG, **changes)
    settings = settings_in(folder).model_copy(update={"hang_timeout_s": hang_timeout_s})
    events = settings.runs_dir / undisturbed.folder.run / "events.jsonl"
    killed = threading.Event()
    options = {"checkpoint": 30, "rank": rank, "killed": killed, "sent": sent}
    killer = threading.Thread(target=kill_a_worker_after, args=(events,), kwargs=options)
    killer.start()
    try:
        return run_spec(path, settings, in_process=False)
    finally:
        killed.set()
        killer.join()


# A busy machine keeps a healthy worker waiting, so the time is short only where it must pass.
@pytest.mark.parametrize(
    ("rank", "sent", "patience"), [(0, signal.SIGKILL, 120.0), (1, signal.SIGSTOP, 8.0)]
)
def test_a_run_whose_worker_dies_or_hangs_resumes_and_ends_with_the_same_weights(
    undisturbed, tmp_path, rank, sent, patience
):
    options = {"rank": rank, "sent": sent, "hang_timeout_s": patience}
    result = run_under_fire(tmp_path, undisturbed, **options)
    story = list(read_events(result.folder.events))
    resumed = [e for e in story if e["event"] == "resumed"]
    assert len(resumed) == 1
    assert resumed[0]["step"] >= 30
    assert max(e["attempt"] for e in story) == 2
    assert [e["event"] for e in story].count("placed") == 2
    crashed, last = read_history(result.folder).attempts
    assert (crashed.outcome, last.outcome) == ("crashed", "finished")
    assert last.num_repeated <= LONG["checkpoint_every"]
    assert read_history(result.folder).timeline.seconds["recovering"] >= crashed.lost_s > 0
    assert weights_of(result) == weights_of(undisturbed)
    assert names_in(result.folder.root) == names_in(undisturbed.folder.root)


def test_a_worker_that_is_told_to_end_costs_no_step_and_no_failure(undisturbed, tmp_path):
    options = {"rank": 1, "sent": signal.SIGTERM, "max_failures": 0}
    result = run_under_fire(tmp_path, undisturbed, **options)
    preempted, last = read_history(result.folder).attempts
    assert (preempted.outcome, last.outcome) == ("preempted", "finished")
    assert last.resumed_from == preempted.last_step
    assert last.num_repeated == 0
    assert weights_of(result) == weights_of(undisturbed)


def test_a_run_whose_workers_always_die_gives_up_and_registers_nothing(ray_session, tmp_path):
    path = write_spec(tmp_path, training=LONG | {"epochs": 400}, max_failures=0)
    settings = settings_in(tmp_path)
    events = settings.runs_dir
    killed = threading.Event()

    def kill_when_started():
        while not killed.is_set():
            logs = list(events.glob("*/events.jsonl"))
            if logs and any(e["event"] == "checkpoint" for e in read_events(logs[0])):
                kill_a_worker_after(logs[0], checkpoint=1, rank=0, killed=killed)
            killed.wait(0.05)

    killer = threading.Thread(target=kill_when_started)
    killer.start()
    try:
        with pytest.raises(RunError, match="max_failures: 0"):
            run_spec(path, settings, in_process=False)
    finally:
        killed.set()
        killer.join()
    (log,) = events.glob("*/events.jsonl")
    assert [e["event"] for e in read_events(log)][-1] == "failed"
    assert not (log.parent / "result.json").exists()


def test_a_request_that_no_node_can_hold_is_refused_before_anything_starts(tmp_path):
    gpus = {"num_workers": 4, "worker": {"kind": "gpu", "type": "H100", "count": 8}}
    settings = settings_in(tmp_path)
    with pytest.raises(UserError, match=r"spec.yaml:\d+: resources"):
        run_spec(write_spec(tmp_path, resources=gpus), settings, in_process=False)
    assert not settings.runs_dir.exists()
