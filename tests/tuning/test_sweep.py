"""A sweep through Ray Tune, on real workers."""

import json
import os
import signal
import threading

import pytest

from kovar.errors import NotFoundError, RunError
from kovar.events import read_events
from kovar.tuning import load_sweep, run_sweep
from kovar.tuning.folder import SweepFolder
from kovar.tuning.ledger import read_ledger
from tiny_run import spoil_weights
from tiny_sweep import GRID, write_sweep
from tiny_version import settings_in

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def submitted(ray_session, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    path = write_sweep(folder, GRID)
    return path, settings_in(folder), run_sweep(load_sweep(path), settings=settings_in(folder))


@pytest.fixture(scope="module")
def finished(submitted):
    return submitted[-1]


def kinds(folder):
    return [entry.kind for entry in read_ledger(SweepFolder(folder).ledger)]


def test_every_trial_finishes_and_reports_what_it_ran_as(finished):
    trials = finished.report.trials
    assert [trial.status for trial in trials] == ["finished"] * 4
    assert [trial.precision for trial in trials] == ["fp32", "bf16", "fp32", "bf16"]
    best = finished.report.best
    assert best.metrics["accuracy"] == max(trial.metrics["accuracy"] for trial in trials)
    assert finished.exit_code == 0


def test_every_trial_says_where_and_how_long_it_ran(finished):
    for trial in finished.report.trials:
        (stay,) = trial.stays
        assert (stay.outcome, bool(stay.node), bool(stay.chip)) == ("finished", True, True)
        assert 0 < trial.train_seconds < trial.wall_seconds
        assert trial.tokens > 0
        assert trial.history


def test_only_the_best_trial_keeps_its_weights_and_none_a_checkpoint(finished):
    kept = {path.parent.name for path in finished.folder.glob("trial-*/*.safetensors")}
    kept |= {
        path.parent.parent.name for path in finished.folder.glob("trial-*/model/*.safetensors")
    }
    assert kept == {f"trial-{finished.report.best.number:04d}"}
    assert not list(finished.folder.glob("trial-*/checkpoints/*"))


def test_the_best_trial_is_registered_with_the_sweep_as_its_origin(finished):
    version = finished.version
    assert (version.model, version.number) == ("tiny", 1)
    assert version.sweep == finished.folder.name
    assert len(version.run_facts["rivals"]) == 3
    told = json.loads((finished.folder / "result.json").read_text())
    assert told["digest"] == version.digest
    assert told["trial"] == finished.report.best.number


def test_rays_own_files_are_gone_in_the_end(finished):
    assert not SweepFolder(finished.folder).ray.exists()


def test_the_results_are_written_as_json(finished):
    results = json.loads((finished.folder / "results.json").read_text())
    assert [trial["status"] for trial in results["trials"]] == ["finished"] * 4


def test_the_same_submission_returns_its_result(submitted):
    path, settings, first = submitted
    before = kinds(first.folder)
    again = run_sweep(load_sweep(path), settings=settings)
    assert again.reused
    assert again.report.trials == first.report.trials
    assert kinds(again.folder) == before


def test_a_changed_sweep_is_another_one_and_a_changed_budget_is_not(submitted, tmp_path):
    path, settings, _ = submitted
    budget = json.loads(path.read_text()) | {"budget": {"hours": 3}, "max_concurrent": 1}
    (path.parent / "budget.yaml").write_text(json.dumps(budget))
    assert run_sweep(load_sweep(path.parent / "budget.yaml"), settings=settings).reused
    other = json.loads(path.read_text()) | {"seed": 1}
    (path.parent / "other.yaml").write_text(json.dumps(other))
    with pytest.raises(NotFoundError, match=r"there is no sweep s-.* to resume"):
        run_sweep(load_sweep(path.parent / "other.yaml"), settings=settings, resume=True)


def test_a_sweep_whose_trials_all_diverge_is_a_failure(ray_session, tmp_path):
    search = {"training.learning_rate": {"kind": "grid", "values": [1.0]}}
    overrides = {"training.max_gradient_norm": 1e30, "training.epochs": 2}
    path = write_sweep(tmp_path, search, overrides=overrides)
    spoil_weights(tmp_path / "encoder")
    with pytest.raises(RunError, match="no trial finished; trial 1: "):
        run_sweep(load_sweep(path), settings=settings_in(tmp_path))
    (folder,) = (tmp_path / "runs").glob("s-*")
    results = json.loads((folder / "results.json").read_text())
    assert [trial["status"] for trial in results["trials"]] == ["diverged"]


def kill_the_first_trial(runs_dir, stop):
    """Wait until trial 1 has been evaluated, then SIGKILL its process."""
    pid = None
    while not stop.is_set():
        for ledger in runs_dir.glob("*/ledger.jsonl"):
            for entry in read_ledger(ledger):
                if entry.kind == "reported" and entry.fields["trial"] == 1:
                    pid = entry.fields.get("pid", pid)
                    if "metrics" in entry.fields:
                        os.kill(pid, signal.SIGKILL)
                        return
        stop.wait(0.02)


def test_a_killed_trial_goes_on_from_its_checkpoint(ray_session, tmp_path):
    search = {"training.seed": {"kind": "grid", "values": [0, 1]}}
    overrides = {"training.epochs": 16, "training.checkpoint_every": 10}
    path = write_sweep(tmp_path, search, overrides=overrides)
    settings, stop = settings_in(tmp_path), threading.Event()
    killer = threading.Thread(target=kill_the_first_trial, args=(settings.runs_dir, stop))
    killer.start()
    try:
        result = run_sweep(load_sweep(path), settings=settings)
    finally:
        stop.set()
        killer.join()
    trial = result.report.trials[0]
    assert [stay.outcome for stay in trial.stays] == ["interrupted", "finished"]
    assert trial.incidents[0] == "its process died"
    assert trial.incidents[1].startswith("went on from its checkpoint of step ")
    assert result.exit_code == 0


def test_trials_of_several_workers_run_on_ray_train(ray_session, tmp_path):
    search = {"training.learning_rate": {"kind": "grid", "values": [1e-3, 2e-3]}}
    resources = {"num_workers": 2, "worker": {"kind": "cpu", "cpus": 1}}
    path = write_sweep(tmp_path, search, overrides={"resources": resources, "training.epochs": 2})
    result = run_sweep(load_sweep(path), settings=settings_in(tmp_path))
    assert [trial.status for trial in result.report.trials] == ["finished"] * 2
    for trial in result.report.trials:
        events = list(read_events(result.folder / f"trial-{trial.number:04d}" / "events.jsonl"))
        assert {e["world_size"] for e in events if e["event"] == "started"} == {2}
        assert trial.history


def test_a_used_up_budget_ends_the_sweep_and_a_larger_one_goes_on(ray_session, tmp_path):
    search = {"training.learning_rate": {"kind": "grid", "values": [1e-3, 2e-3]}}
    path, settings = write_sweep(tmp_path, search, budget={"hours": 1e-6}), settings_in(tmp_path)
    with pytest.raises(RunError, match="no trial finished; trial 1: the budget of 1e-06 hours"):
        run_sweep(load_sweep(path), settings=settings)
    write_sweep(tmp_path, search, budget={"hours": 9})
    result = run_sweep(load_sweep(path), settings=settings, resume=True)
    assert [trial.status for trial in result.report.trials] == ["finished"] * 2
    assert kinds(result.folder).count("opened") == 2


def test_poor_trials_go_on_from_the_checkpoints_of_better_ones(ray_session, tmp_path):
    search = {"training.learning_rate": {"kind": "loguniform", "low": 1e-7, "high": 1e-2}}
    overrides = {"training.epochs": 8, "training.evaluate_every": 20}
    pbt = {"kind": "pbt", "quantile": 0.5}
    path = write_sweep(tmp_path, search, overrides=overrides, scheduler=pbt, num_samples=3)
    result = run_sweep(load_sweep(path), settings=settings_in(tmp_path))
    assert [trial.status for trial in result.report.trials] == ["finished"] * 3
    entries = list(read_ledger(SweepFolder(result.folder).ledger))
    taken = [entry.fields for entry in entries if entry.kind == "exploited"]
    assert taken
    for exploit in taken:
        told = result.report.trials[exploit["trial"] - 1].incidents
        assert f"goes on from step {exploit['step']} of trial {exploit['donor']}" in told
        assert f"went on from its checkpoint of step {exploit['step']}" in told
