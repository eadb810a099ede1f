"""What follows from evaluations: best step, lower rate, early stop."""

from __future__ import annotations

import pytest
import torch

from kovar.errors import RunError
from kovar.training import FineTuneSpec, TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.judge import Judge
from kovar.training.state import Snapshot
from kovar.training.tasks import TASKS, TextClassification

TASK = TASKS["text-classification"]


class Scripted(TextClassification):
    """Evaluates to numbers that were written down before."""

    def __init__(self, *values):
        self.values = iter(values)

    def tally(self, dataset, split, device):
        tally = super().tally(dataset, split, device)
        found = tally.metrics() | {"accuracy": next(self.values)}
        tally.metrics = lambda: found
        return tally


def judge(values, **settings):
    found = Judge(TrainingSettings(**settings), TASK)
    heard = [found.hear(step, {found.metric: v}) for step, v in enumerate(values, start=1)]
    return found, heard


def test_the_best_step_is_the_first_of_the_highest_accuracy():
    found, heard = judge([0.5, 0.7, 0.7, 0.6])
    assert (found.best_step, heard) == (2, [True, True, False, False])


def test_of_losses_the_lowest_is_the_best():
    assert judge([0.5, 0.7, 0.4], metric="loss")[0].best_step == 3


@pytest.mark.parametrize(("values", "stops"), [([0.5, 0.6, 0.6, 0.6], True), ([0.5, 0.6], False)])
def test_a_run_stops_after_as_many_evaluations_without_improvement(values, stops):
    assert judge(values, early_stopping={"patience": 2})[0].stops is stops


def test_a_change_below_min_delta_is_no_improvement():
    patient = {"early_stopping": {"patience": 2, "min_delta": 0.05}}
    assert judge([0.5, 0.52, 0.54], **patient)[0].stops
    assert not judge([0.5, 0.52, 0.56], **patient)[0].stops


def test_a_plateau_lowers_the_rate_again_and_again():
    plateau = {"kind": "plateau", "factor": 0.5, "patience": 2}
    assert judge([0.5] * 3, schedule=plateau)[0].rate_scale == 0.5
    assert judge([0.5] * 5, schedule=plateau)[0].rate_scale == 0.25


def test_a_judge_goes_on_from_its_state():
    options = {"early_stopping": {"patience": 2}, "schedule": "plateau"}
    whole, _ = judge([0.5, 0.6, 0.6, 0.6], **options)
    first, _ = judge([0.5, 0.6], **options)
    second = Judge(TrainingSettings(**options), TASK)
    second.restore(first.state())
    for step in (3, 4):
        second.hear(step, {"accuracy": 0.6})
    assert (second.state(), second.stops) == (whole.state(), whole.stops)


def settings(**changes):
    base = {"epochs": 4, "max_tokens": 256, "checkpoint_every": 100, "evaluate_every": 3}
    return TrainingSettings(learning_rate=0.005, **(base | changes))


def weights(engine):
    return {name: p.detach().clone() for name, p in engine.parameters.items()}


def test_an_early_stop_leaves_the_weights_of_the_best_step(engines, tmp_path):
    events = []
    chosen = settings(early_stopping={"patience": 2})
    engine = engines(chosen, task=Scripted(0.5, 0.9, 0.8, 0.7, 0.6), events=events)
    engine.train(CheckpointFolder(tmp_path / "a", keep=1))
    assert (engine.last_step, engine.weights_step) == (12, 6)
    assert ("stopped", {"step": 12, "metric": "accuracy", "best_step": 6}) in events
    again = engines(settings(keep_best=True), task=Scripted(*[0.5, 0.9, 0.8] * 9))
    again.train(CheckpointFolder(tmp_path / "b", keep=1))
    assert all(torch.equal(weights(engine)[name], t) for name, t in weights(again).items())


def test_a_run_that_is_killed_after_its_early_stop_stops_at_the_same_step_again(engines, tmp_path):
    chosen = settings(early_stopping={"patience": 1}, checkpoint_every=3)
    first = engines(chosen, task=Scripted(0.5, 0.9, 0.8))
    first.train(CheckpointFolder(tmp_path, keep=3))
    again = engines(chosen, task=Scripted(0.8))
    again.train(CheckpointFolder(tmp_path, keep=3))
    assert (again.last_step, again.weights_step) == (first.last_step, first.weights_step) == (9, 6)
    assert all(torch.equal(weights(first)[name], t) for name, t in weights(again).items())


def test_the_best_checkpoint_outlives_newer_ones_and_a_damaged_one_is_an_error(engines, tmp_path):
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    for step in (1, 2, 3):
        checkpoints.save(Snapshot(step, {}, {}), pinned=1)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001", "step-00000003"]
    (tmp_path / "step-00000001" / "state.json").write_text("{")
    with pytest.raises(RunError, match="step 1 cannot be used"):
        checkpoints.verified(1)


def test_the_average_of_the_weights_is_what_is_left_at_the_end(engines, tmp_path):
    plain, averaged = engines(settings()), engines(settings(ema_decay=0.9))
    plain.train(CheckpointFolder(tmp_path / "plain", keep=1))
    averaged.train(CheckpointFolder(tmp_path / "averaged", keep=1))
    assert not torch.equal(plain.model.classifier.weight, averaged.model.classifier.weight)
    assert torch.allclose(
        plain.model.classifier.weight, averaged.model.classifier.weight, atol=0.05
    )


def test_a_metric_that_the_task_lacks_is_refused_with_those_it_has():
    fields = {
        "kind": "finetune",
        "name": "x",
        "model": {"base": "b"},
        "data": {"source": "s"},
        "training": {"metric": "f2"},
    }
    with pytest.raises(ValueError, match="no metric 'f2'; it has accuracy, loss, macro_f1"):
        FineTuneSpec.model_validate(fields)
