"""One trial in this process, without Ray."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from kovar.events import read_events
from kovar.training.folder import RunFolder
from kovar.training.method import Lora
from kovar.training.worker import execute
from kovar.tuning.trial import TrialEnd, adopt, drop_weights, following, run_trial
from tiny_run import spoil_weights
from tiny_trial import tiny_trial


def told_by(task):
    """Run a trial; return its end and its news."""
    news = []
    return run_trial(task, report=news.append), news


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A trial in fp32, its end and its news."""
    task = tiny_trial(tmp_path_factory.mktemp("trial"))
    return task, *told_by(task)


def test_a_trial_leaves_weights_answers_and_its_end_and_no_version(finished):
    task, end, _ = finished
    assert {path.name for path in task.folder.iterdir()} == {
        "attempts", "events.jsonl", "predictions.parquet", "trial.json", "weights.safetensors",
    }  # fmt: skip
    assert (end.status, end.weights, end.predictions) == (
        "finished", "weights.safetensors", "predictions.parquet",
    )  # fmt: skip
    assert TrialEnd.read(task.folder) == end


def test_its_news_are_its_start_and_every_evaluation_with_what_was_used(finished):
    _, end, news = finished
    assert [one.kind for one in news] == ["started", *["evaluated"] * (len(news) - 1)]
    assert news[0].facts["precision"] == "fp32"
    assert [one.evaluation.step for one in news[1:]] == [10, 20, end.step]
    assert news[-1].usage.tokens == end.usage.tokens > news[1].usage.tokens > 0
    assert end.usage.peak_memory_bytes > 50_000_000


def test_its_answers_give_its_metrics_again(finished):
    task, end, _ = finished
    table = parquet.read_table(task.folder / end.predictions)
    true, predicted = (table[name].to_pylist() for name in ("true", "predicted"))
    right = [a == b for a, b in zip(true, predicted, strict=True)]
    assert sum(right) / len(right) == pytest.approx(end.metrics["accuracy"])
    losses = table["loss"].to_pylist()
    assert sum(losses) / len(losses) == pytest.approx(end.metrics["loss"], rel=1e-5)
    assert json.loads(table.schema.metadata[b"kovar.labels"]) == list(task.dataset.labels)


def test_its_scores_and_weights_are_those_of_a_run_of_the_same_spec(finished, tmp_path):
    task, end, _ = finished
    run = replace(task, purpose="version", folder=tmp_path / "run")
    execute(run, device=torch.device("cpu"))
    paths = RunFolder(run.folder)
    scores = json.loads(paths.metrics.read_text())["evaluation"]
    assert scores["accuracy"] == end.metrics["accuracy"]
    whole, trained = (
        load_file(path)
        for path in (paths.model / "model.safetensors", task.folder / "weights.safetensors")
    )
    assert all(torch.equal(trained[name], tensor) for name, tensor in whole.items())


def test_a_trial_that_has_ended_is_not_trained_again(finished):
    task, end, _ = finished
    again, news = told_by(task)
    assert (again, news) == (end, [])


def test_an_end_that_was_altered_is_not_believed(finished, tmp_path):
    task, _, _ = finished
    text = (task.folder / "trial.json").read_text()
    (tmp_path / "trial.json").write_text(text.replace('"finished"', '"diverged"'))
    assert TrialEnd.read(tmp_path) is None


def test_a_trial_does_not_depend_on_those_before_it_in_the_process(finished, tmp_path):
    _, end, _ = finished
    for number, change in enumerate([{"precision": "bf16"}, {"method": Lora()}, {"seed": 7}], 2):
        other, _ = told_by(tiny_trial(tmp_path, number, **change))
        assert other.weights_digest != end.weights_digest
    again, _ = told_by(tiny_trial(tmp_path, 1))
    assert again.weights_digest == end.weights_digest
    assert again.metrics == end.metrics


def test_numbers_that_are_not_finite_end_a_trial_as_diverged_in_its_own_precision(tmp_path):
    task = tiny_trial(tmp_path, precision="bf16", learning_rate=1.0, max_gradient_norm=1e30)
    spoil_weights(tmp_path / "encoder")
    end, _ = told_by(task)
    assert (end.status, end.weights) == ("diverged", None)
    assert "loss" in end.reason
    assert "rolled_back" not in {e["event"] for e in read_events(task.folder / "events.jsonl")}
    assert told_by(task)[0] == end


def test_weights_are_left_only_where_the_trial_may_be_the_best(tmp_path):
    loser, _ = told_by(tiny_trial(tmp_path, 1, options={"weights_bar": 1.0}))
    assert loser.weights is None
    assert not (tmp_path / "trial-0001" / "weights.safetensors").exists()
    winner, _ = told_by(tiny_trial(tmp_path, 2, options={"weights_bar": -1.0}))
    assert winner.weights_digest == loser.weights_digest
    drop_weights(tmp_path / "trial-0002")
    assert not (tmp_path / "trial-0002" / "weights.safetensors").exists()


@pytest.mark.parametrize("precision", ["bf16"])
def test_a_trial_in_another_precision_is_scored_in_fp32(tmp_path, precision):
    end, news = told_by(tiny_trial(tmp_path, precision=precision))
    assert end.precision == precision
    assert end.metrics["loss"] != news[-1].evaluation.metrics["loss"]
    assert end.metrics["loss"] == pytest.approx(news[-1].evaluation.metrics["loss"], rel=0.1)


def test_weights_that_are_kept_in_bf16_stay_so_in_the_file(tmp_path):
    end, _ = told_by(tiny_trial(tmp_path, precision="bf16", weights="bf16"))
    tensors = load_file(tmp_path / "trial-0001" / end.weights)
    assert {t.dtype for n, t in tensors.items() if "position_ids" not in n} >= {torch.bfloat16}


def test_the_best_step_is_scored_where_the_spec_asks_for_it(tmp_path):
    end, news = told_by(tiny_trial(tmp_path, epochs=4, keep_best=True))
    seen = {one.evaluation.step: one.evaluation for one in news if one.evaluation}
    assert end.metrics["accuracy"] == max(one.metrics["accuracy"] for one in seen.values())
    assert seen[end.step].metrics == end.metrics


class Stopped(Exception):
    """What a scheduler makes of a report."""


def stop_after(step, news):
    """Return a report that ends the trial after an evaluation."""

    def report(one):
        news.append(one)
        if one.evaluation is not None and one.evaluation.step == step:
            raise Stopped

    return report


def test_a_paused_trial_goes_on_from_the_evaluation_at_which_it_was_paused(finished, tmp_path):
    _, end, _ = finished
    task, news = tiny_trial(tmp_path, options={"saves_updates": True}), []
    with pytest.raises(Stopped):
        run_trial(task, report=stop_after(10, news))
    again, further = told_by(task)
    assert [one.kind for one in further][:2] == ["started", "incident"]
    assert [one.evaluation.step for one in further if one.evaluation] == [20, end.step]
    assert (again.weights_digest, again.metrics) == (end.weights_digest, end.metrics)


def test_a_trial_that_adopts_a_checkpoint_goes_on_from_there_with_its_own_rate(tmp_path):
    donor = tiny_trial(tmp_path, 1, options={"saves_updates": True})
    with pytest.raises(Stopped):
        run_trial(donor, report=stop_after(20, []))
    task = tiny_trial(tmp_path, 2, learning_rate=1e-4, options={"saves_updates": True})
    adopt(task.folder, donor.folder, step=20)
    end, news = told_by(task)
    assert news[1].text == "went on from its checkpoint of step 20"
    steps = [e for e in read_events(task.folder / "events.jsonl") if e["event"] == "step"]
    assert max(e["learning_rate"] for e in steps) < 1e-4
    assert end.status == "finished"
    assert (donor.folder / "checkpoints" / "step-00000020").is_dir()


def test_nothing_of_a_trial_is_left_in_the_environment(tmp_path):
    before = dict(os.environ)

    def meddle(one):
        os.environ["LEFT_BY_A_TRIAL"] = "1"

    run_trial(tiny_trial(tmp_path), report=meddle)
    assert dict(os.environ) == before


def test_a_trial_that_runs_elsewhere_is_followed_through_its_event_log(finished):
    """What other processes write into the log becomes the news that a trial here would tell."""
    task, end, told = finished
    lines = (task.folder / "events.jsonl").read_text().splitlines(keepends=True)
    other, news = replace(task, folder=task.folder.parent / "followed"), []
    other.folder.mkdir()
    with following(other, news.append), (other.folder / "events.jsonl").open("a") as log:
        log.writelines(lines)
    assert [(one.kind, one.evaluation and one.evaluation.step) for one in news] == [
        (one.kind, one.evaluation and one.evaluation.step) for one in told
    ]
    assert news[-1].usage.tokens == end.usage.tokens


def test_a_scheduler_ends_a_followed_trial_when_the_block_ends(finished):
    task, _, _ = finished
    other = replace(task, folder=task.folder.parent / "followed-and-stopped")
    other.folder.mkdir()
    lines = (task.folder / "events.jsonl").read_text()
    with pytest.raises(Stopped), following(other, stop_after(10, [])):
        (other.folder / "events.jsonl").write_text(lines)
