"""A sweep through Ray Tune, on real workers."""

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kovar.errors import RunError
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
    assert [o.status for o in report.outcomes] == ["finished"] * 4
    assert [o.precision for o in report.outcomes] == ["fp32", "bf16", "fp32", "bf16"]
    assert report.best.metrics["accuracy"] == max(o.metrics["accuracy"] for o in report.outcomes)


def test_only_the_best_trial_keeps_its_model_and_none_a_checkpoint(finished):
    report, folder = finished
    kept = [path.parent.name for path in folder.glob("trial-*/model")]
    assert kept == [f"trial-{report.best.number:04d}"]
    assert not list(folder.glob("trial-*/checkpoints"))


def test_the_results_are_written_as_json(finished):
    report, folder = finished
    assert json.loads((folder / "results.json").read_text()) == json.loads(
        json.dumps(report.to_json())
    )


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
