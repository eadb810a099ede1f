"""A sweep through Ray Tune, on real workers."""

import json
import os
import signal
import threading

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kovar.errors import RunError
from kovar.events import read_events
from kovar.tuning import load_sweep, run_sweep
from tiny_run import spoil_weights
from tiny_sweep import GRID, write_sweep
from tiny_version import settings_in

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def finished(ray_session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    sweep = load_sweep(write_sweep(folder, GRID))
    return run_sweep(sweep, settings=settings_in(folder))


def test_every_trial_finishes_and_reports_what_it_ran_as(finished):
    report, _ = finished
    assert [o.status for o in report.trials] == ["finished"] * 4
    assert [o.precision for o in report.trials] == ["fp32", "bf16", "fp32", "bf16"]
    assert report.best.metrics["accuracy"] == max(o.metrics["accuracy"] for o in report.trials)


def test_only_the_best_trial_keeps_its_model_and_none_a_checkpoint(finished):
    report, folder = finished
    kept = [path.parent.name for path in folder.glob("trial-*/model")]
    assert kept == [f"trial-{report.best.number:04d}"]
    assert not list(folder.glob("trial-*/checkpoints"))


def test_the_results_are_written_as_json(finished):
    report, folder = finished
    written = json.loads((folder / "results.json").read_text())
    assert written | json.loads(json.dumps(report.to_json())) == written


def test_tensorboard_reads_the_trials_of_tune(finished):
    _, folder = finished
    board = EventAccumulator(str(folder / "tune" / "trial-0001")).Reload()
    assert "ray/tune/accuracy" in board.Tags()["scalars"]


def test_a_sweep_whose_trials_all_diverge_is_a_failure(ray_session, tmp_path):
    search = {"training.learning_rate": {"kind": "grid", "values": [1.0]}}
    overrides = {"training.max_gradient_norm": 1e30, "training.epochs": 2}
    path = write_sweep(tmp_path, search, overrides=overrides)
    spoil_weights(tmp_path / "encoder")
    with pytest.raises(RunError, match="no trial finished; trial 1: step"):
        run_sweep(load_sweep(path), settings=settings_in(tmp_path))


def kill_the_first_trial(runs_dir, stop):
    """Wait for a checkpoint of trial 1, then SIGKILL its process."""
    while not stop.is_set():
        for log in runs_dir.glob("*/trial-0001/events.jsonl"):
            seen = list(read_events(log))
            if any(event["event"] == "checkpoint" for event in seen):
                os.kill(next(e["pid"] for e in seen if e["event"] == "started"), signal.SIGKILL)
                return
        stop.wait(0.02)


def test_a_killed_trial_goes_on_from_its_checkpoint(ray_session, tmp_path):
    search = {"training.seed": {"kind": "grid", "values": [0, 1]}}
    overrides = {"training.epochs": 60, "training.checkpoint_every": 10}
    path = write_sweep(tmp_path, search, overrides=overrides)
    settings, stop = settings_in(tmp_path), threading.Event()
    killer = threading.Thread(target=kill_the_first_trial, args=(settings.runs_dir, stop))
    killer.start()
    try:
        report, folder = run_sweep(load_sweep(path), settings=settings)
    finally:
        stop.set()
        killer.join()
    story = [e["event"] for e in read_events(folder / "trial-0001" / "events.jsonl")]
    assert "resumed" in story
    assert report.num_failed == 0
