"""Finding the run that somebody means."""

import json
import os

import pytest

from kovar.errors import NotFoundError, UserError
from kovar.training.history import find_run, list_runs, trials_of
from story import CRASHED, UNDISTURBED, started, step, told, write_story

IDS = ("tiny-0123456789", "tiny-0123456789-2", "tiny-large-00ab00ab00", "movies-ffffffffff")


@pytest.fixture
def runs_dir(tmp_path):
    for hours, run in enumerate(IDS):
        name = run.rpartition("-")[0] if run != IDS[1] else "tiny"
        queued = told(3600 * hours, "queued", spec=name, kind="finetune")
        write_story(tmp_path / run, [queued, told(3600 * hours + 5, "failed", error="RunError")])
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("")
    return tmp_path


def found(runs_dir, reference):
    return find_run(runs_dir, reference).run


def test_an_id_a_model_a_prefix_and_a_folder_all_name_a_run(runs_dir):
    assert found(runs_dir, IDS[0]) == IDS[0]
    assert found(runs_dir, "tiny") == IDS[1]
    assert found(runs_dir, "tiny-l") == IDS[2]
    assert found(runs_dir, "mov") == IDS[3]
    assert found(runs_dir, str(runs_dir / IDS[0])) == IDS[0]
    assert found(runs_dir, str(runs_dir / IDS[0] / "events.jsonl")) == IDS[0]


def test_a_beginning_that_several_runs_share_names_them(runs_dir):
    with pytest.raises(UserError, match=r"several runs begin so\n.*\n.*tiny-large") as error:
        found(runs_dir, "tin")
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("reference", "hint"),
    [("tinny", 'did you mean "tiny"'), ("moives", 'did you mean "movies"'), ("zzz", "runs list")],
)
def test_a_near_miss_is_suggested(runs_dir, reference, hint):
    with pytest.raises(NotFoundError, match=hint):
        found(runs_dir, reference)


def test_a_runs_folder_that_does_not_exist_has_no_runs(tmp_path):
    assert list_runs(tmp_path / "absent") == []
    with pytest.raises(NotFoundError, match="there are no runs"):
        found(tmp_path / "absent", "x")


def test_runs_are_listed_newest_first_and_filtered(runs_dir):
    assert [one.run for one in list_runs(runs_dir)] == list(reversed(IDS))
    assert [one.run for one in list_runs(runs_dir, model="tiny")] == [IDS[1], IDS[0]]
    assert list_runs(runs_dir, status="running") == []
    assert len(list_runs(runs_dir, status="failed")) == 4


def test_a_finished_run_is_listed_with_duration_and_accuracy(tmp_path):
    result = {"metrics": {"evaluation": {"accuracy": 0.81}}}
    write_story(tmp_path / IDS[0], UNDISTURBED, result=result)
    (one,) = list_runs(tmp_path)
    assert (one.status, one.seconds, one.metric, one.score) == ("finished", 83, "accuracy", 0.81)


def test_a_long_log_is_listed_from_its_ends(tmp_path):
    many = [step(10 * n, n, note="x" * 400) for n in range(1, 2000)]
    folder = write_story(tmp_path / IDS[0], [CRASHED[0], *many])
    os.utime(folder.events)
    (one,) = list_runs(tmp_path)
    assert (one.model, one.status, one.seconds) == ("tiny", "interrupted", 19990)


def test_a_sweep_is_one_row_and_its_trials_are_found_by_its_name(tmp_path):
    root = tmp_path / "tiny-lr-20260501-120000-123456"
    scored = told(12, "evaluated", rank=0, step=10, metrics={"accuracy": 0.7})
    done = told(13, "finished", rank=0, step=10, weights_digest="x")
    write_story(root / "trial-0001", [started(0), step(11, 10), scored, done])
    write_story(root / "trial-0002", [started(0), told(2, "failed", rank=0, error="X")])
    (root / "results.json").write_text(json.dumps({}))
    (sweep,) = list_runs(tmp_path)
    assert (sweep.kind, sweep.model, sweep.status) == ("sweep", "tiny-lr", "finished")
    assert (sweep.metric, sweep.score) == ("accuracy", 0.7)
    trials = trials_of(find_run(tmp_path, "tiny-lr"))
    assert [trial.status for trial in trials] == ["finished", "failed"]
    assert find_run(tmp_path, f"{root.name}/trial-0002").run == "trial-0002"
