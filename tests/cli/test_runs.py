"""`kovar runs`, as a shell runs it: on runs that were trained, and on hand-written logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kovar.events import read_events
from kovar.training.folder import RunFolder
from kovar.training.heartbeat import beating
from kovar.training.history import read_history
from story import CRASHED, UNDISTURBED, told, write_story
from tiny_run import run_spec, spoil_weights, write_spec
from tiny_version import settings_in

LOST = "lost-0123456789"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    (folder / "broken").mkdir()
    settings = settings_in(folder)
    run_spec(write_spec(folder), settings)
    spoiled = write_spec(folder / "broken", name="spoiled")
    spoil_weights(folder / "broken" / "encoder")
    with pytest.raises(Exception, match="loss"):
        run_spec(spoiled, settings)
    lost = [CRASHED[0] | {"spec": "lost"}, *CRASHED[1:]]
    write_story(settings.runs_dir / LOST, lost)
    return folder


@pytest.fixture
def kovar(home):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "kovar", "runs", *map(str, arguments)],
            env=os.environ | {"KOVAR_HOME": str(home), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_the_list_shows_runs_newest_first_with_their_states(kovar):
    rows = json.loads(kovar("list", "--json").stdout)
    assert [(row["model"], row["status"]) for row in rows] == [
        ("spoiled", "failed"), ("tiny", "finished"), ("lost", "interrupted"),
    ]  # fmt: skip
    shown = kovar("list").stdout
    assert all(row["run"] in shown for row in rows)


def test_the_list_is_filtered_by_state_and_model(kovar):
    assert "spoiled" in kovar("list", "--status", "failed").stdout
    (row,) = json.loads(kovar("list", "--model", "tiny", "--json").stdout)
    assert row["score"] >= 0.9
    assert "no such runs" in kovar("list", "--status", "waiting").stdout


def test_show_tells_facts_metrics_attempts_and_files(kovar):
    shown = kovar("show", "tiny").stdout
    for text in ("finished", "tiny@1", "104 of 104", "macro f1", "1 × cpu", "events.jsonl"):
        assert text in shown


def test_show_as_json_splits_the_whole_time(kovar):
    facts = json.loads(kovar("show", "tiny", "--json").stdout)
    assert sum(facts["time_split"].values()) == pytest.approx(facts["seconds"], abs=1e-3)
    assert facts["time_split"]["tokenizing"] > 0
    assert facts["throughput"]["tokens_per_s"] > 0


def test_show_writes_the_page(kovar, tmp_path):
    assert kovar("show", "tiny", "--html", tmp_path / "run.html").returncode == 0
    assert "</html>" in (tmp_path / "run.html").read_text()
    assert kovar("show", "tiny", "--html", tmp_path / "no" / "run.html").returncode == 2


def test_a_run_leaves_its_page_behind_whether_it_finished_or_failed(home):
    pages = {
        page.parent.name.split("-")[0]: page.read_text() for page in home.glob("runs/*/run.html")
    }
    assert '<span class="pill finished">' in pages["tiny"]
    assert '<span class="pill failed">' in pages["spoiled"]


def test_tail_prints_the_last_events_as_lines(kovar):
    lines = kovar("tail", "tiny", "-n", "3").stdout.splitlines()
    assert len(lines) == 3
    assert "registered tiny@1" in lines[-1]
    assert "resumed    from step 10; ignored step-20: torn" in kovar("tail", "lost").stdout


def test_tail_follows_until_the_run_has_ended(kovar, home, tmp_path):
    folder = write_story(home / "runs" / "alive-0123456789", UNDISTURBED[:8])
    command = [sys.executable, "-m", "kovar", "runs", "tail", "alive", "-f"]
    environment = os.environ | {"KOVAR_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    with beating(folder.heartbeat):
        tail = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert "queued" in tail.stdout.readline()
        with folder.events.open("a") as log:
            log.write(json.dumps(told(99, "failed", error="RunError", message="enough")) + "\n")
    rest = tail.communicate()[0]
    assert tail.returncode == 0
    assert "failed     RunError: enough" in rest.splitlines()[-1]


def test_explain_says_where_the_time_went_and_needs_the_log_alone(kovar, home, tmp_path):
    (source,) = home.glob("runs/tiny-*/events.jsonl")
    (tmp_path / "events.jsonl").write_bytes(source.read_bytes())
    for target in ("tiny", tmp_path, tmp_path / "events.jsonl"):
        told = kovar("explain", target).stdout
        assert "finished" in told
        assert all(phase in told for phase in ("stepping", "evaluating", "tokenizing", "total"))


def test_explain_says_why_a_run_failed_and_what_to_do(kovar):
    told = kovar("explain", "spoiled").stdout
    assert "why: NonFiniteError: step" in told
    assert "lower training.learning_rate" in told


def test_explain_tells_crashes_and_what_they_cost(kovar):
    told = " ".join(kovar("explain", LOST[:7]).stdout.split())
    assert "attempt 1 crashed after step 30; attempt 2 went on from step 10" in told
    assert "submit the same spec again: it resumes from step 10" in told
    facts = json.loads(kovar("explain", LOST, "--json").stdout)
    assert facts["why"]["what"].startswith("its driver ended")


def test_no_command_needs_torch_or_ray(home):
    code = (
        "import sys; from kovar.cli import app; from typer.testing import CliRunner; "
        "[CliRunner().invoke(app, ['runs', *words], catch_exceptions=False) for words in "
        "(['list'], ['show', 'tiny'], ['explain', 'lost'], ['tail', 'tiny'])]; "
        "print(*sorted({'torch', 'ray', 'matplotlib', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"KOVAR_HOME": str(home)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == []


MISTAKES = {
    "unknown run": (["show", "tinny"], 'did you mean "tiny"'),
    "unknown state": (["list", "--status", "runing"], 'did you mean "running"'),
    "no run of that beginning": (["explain", "zzz"], "kovar runs list shows them"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_exits_with_2_and_one_message(kovar, mistake):
    arguments, message = MISTAKES[mistake]
    done = kovar(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_phases_of_a_real_run_leave_little_unexplained(home):
    (log,) = home.glob("runs/tiny-*/events.jsonl")
    timeline = read_history(RunFolder(log.parent)).timeline
    assert timeline.seconds.get("other", 0) < timeline.total_s / 4
    assert {e["event"] for e in read_events(log)} >= {"prepared", "evaluated", "registered"}
