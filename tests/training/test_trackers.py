"""Trackers: what they are sent, and that they can neither break a run nor hold it up."""

import json
import threading

import pytest

from kovar.errors import MissingExtraError
from kovar.events import read_events
from kovar.settings import load_settings
from kovar.training.trackers import (
    Point,
    ScalarReader,
    TrackedRun,
    check_trackers,
    tracking,
)
from kovar.training.trackers.mlflow_run import MlflowRun
from kovar.training.trackers.wandb_run import WandbRun
from story import CRASHED, START, UNDISTURBED, started, step
from tiny_run import run_spec, write_spec
from tiny_version import settings_in


class Notebook:
    """A tracker that writes down what it is told."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.ends: list[bool] = []

    def log(self, point: Point) -> None:
        self.points.append(point)

    def finish(self, *, succeeded: bool) -> None:
        self.ends.append(succeeded)


@pytest.fixture
def run(tmp_path):
    return TrackedRun("tiny-0123456789", "tiny", {"training": {"epochs": 2}, "x": None}, tmp_path)


def follow(run, opened_by, *, events=UNDISTURBED, **options):
    """Write events into a run's log while its trackers are fed."""
    trackers = {"mlflow": opened_by}
    lines = "".join(json.dumps(event) + "\n" for event in events)
    with tracking(["mlflow"], run, opened_by=trackers, **options):
        append(run, lines)


def append(run, lines):
    with (run.folder / "events.jsonl").open("a") as log:
        log.write(lines)


def test_a_step_has_loss_speed_padding_memory_and_the_share_of_the_peak():
    reader = ScalarReader()
    assert reader.read(started(0, flops_per_token=1e9, peak_flops=1e12, world_size=2)) is None
    point = reader.read(step(10, 10, memory_bytes=512))
    assert (point.step, point.at) == (10, START + 10)
    assert point.scalars == {
        "train/loss": 0.1, "train/learning_rate": 1e-4, "train/gradient_norm": 0.5,
        "train/padding": 0.1, "train/memory_bytes": 512, "train/epoch": 0,
        "train/tokens_per_s": 90, "train/flops_per_s": 9e10, "train/peak_share": 0.045,
    }  # fmt: skip


def test_evaluations_are_told_apart_from_the_final_one():
    points = [point for event in UNDISTURBED if (point := ScalarReader().read(event))]
    names = [set(point.scalars) for point in points[-2:]]
    assert names == [
        {"evaluation/accuracy", "evaluation/loss"},
        {"final/accuracy", "final/macro_f1"},
    ]


def test_a_tracker_is_sent_every_point_and_the_end(run):
    notebook = Notebook()
    follow(run, lambda told: notebook)
    assert [point.step for point in notebook.points] == [10, 20, 20, 20]
    assert notebook.ends == [True]


def fail_after(run, events, opened_by):
    with tracking(["mlflow"], run, opened_by=opened_by):
        append(run, "".join(json.dumps(event) + "\n" for event in events))
        raise KeyError


def test_a_tracker_learns_that_its_run_failed(run):
    notebook = Notebook()
    with pytest.raises(KeyError):
        fail_after(run, UNDISTURBED[:8], {"mlflow": lambda told: notebook})
    assert notebook.ends == [False]


def test_what_was_logged_before_is_not_sent_again(run):
    follow(run, lambda told: Notebook())
    notebook = Notebook()
    follow(run, lambda told: notebook, events=CRASHED[-1:])
    assert [point.step for point in notebook.points] == [40]


def test_a_run_that_had_been_finished_opens_no_tracker(run):
    follow(run, lambda told: pytest.fail("opened"), events=[])


def test_a_broken_tracker_is_told_once_and_breaks_nothing(run, caplog):
    class Broken(Notebook):
        def log(self, point: Point) -> None:
            raise ConnectionError("no route to host")

    follow(run, lambda told: Broken())
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "tracker mlflow is off for this run: no route to host" in caplog.text


def test_a_tracker_that_hangs_does_not_hold_up_the_end_of_a_run(run, caplog):
    free = threading.Event()

    class Hanging(Notebook):
        def log(self, point: Point) -> None:
            free.wait()

    follow(run, lambda told: Hanging(), finish_s=0.01)
    free.set()
    assert "has not taken everything after 0.01 s" in caplog.text


def test_a_tracker_whose_package_is_missing_is_refused_with_the_command(monkeypatch):
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    with pytest.raises(MissingExtraError, match=r'pip install "kovar-platform\[wandb\]"'):
        check_trackers(["wandb"])


def test_trackers_are_named_in_the_environment_or_the_settings_file(tmp_path):
    home = {"KOVAR_HOME": str(tmp_path)}
    assert load_settings(home).trackers == ()
    (tmp_path / "settings.yaml").write_text("trackers: [mlflow]\n")
    assert load_settings(home).trackers == ("mlflow",)
    assert load_settings(home | {"KOVAR_TRACKERS": "wandb mlflow"}).trackers == ("wandb", "mlflow")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # no migrations: it opens at once
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())


def read_mlflow(run):
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("tiny")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == run
    losses = client.get_metric_history(found.info.run_id, "train/loss")
    return found, [metric.step for metric in losses]


@pytest.mark.usefixtures("offline")
def test_mlflow_gets_parameters_and_metrics_and_a_resumed_run_goes_on_in_place(run):
    follow(run, MlflowRun)
    follow(run, MlflowRun, events=CRASHED[-1:])
    found, steps = read_mlflow(run.run)
    assert found.data.params == {"training.epochs": "2"}
    assert found.data.metrics["evaluation/accuracy"] == 0.8
    assert steps == [10, 20, 40]
    assert found.info.status == "FINISHED"


@pytest.mark.usefixtures("offline")
def test_wandb_works_offline_without_a_key_and_keeps_its_files_in_the_runs_folder(run, caplog):
    follow(run, WandbRun)
    assert caplog.records == []
    (log,) = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    assert b"train/gradient_norm" in log.read_bytes()


@pytest.mark.usefixtures("offline")
def test_a_real_run_sends_its_curves(tmp_path):
    settings = with_trackers(settings_in(tmp_path), ("mlflow", "wandb"))
    result = run_spec(write_spec(tmp_path), settings)
    found, steps = read_mlflow(result.folder.run)
    assert steps == [e["step"] for e in read_events(result.folder.events) if e["event"] == "step"]
    assert found.data.metrics["final/accuracy"] == result.metrics["accuracy"]
    assert found.data.metrics["train/memory_bytes"] > 1e8
    assert found.data.metrics["train/flops_per_s"] > 0


@pytest.mark.usefixtures("offline")
def test_a_run_whose_tracking_server_is_away_finishes(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # no migrations: it opens at once
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    training = {"epochs": 1, "max_steps": 2, "max_tokens": 128}
    settings = with_trackers(settings_in(tmp_path), ("mlflow",))
    assert run_spec(write_spec(tmp_path, training=training), settings).version
    assert caplog.text.count("tracker mlflow is off for this run") == 1


def with_trackers(settings, trackers):
    return settings.model_copy(update={"trackers": trackers})
