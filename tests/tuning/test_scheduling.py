"""Ray Tune's schedulers hear the ledger again, and decide as if nothing had happened."""

import random

import pytest

from kovar.tuning.ledger import read_ledger
from kovar.tuning.scheduler import Asha, HyperBand, MedianStopping, NoScheduler, Pbt
from kovar.tuning.scheduling import SweepScheduler, SweepTrial
from tiny_conductor import conductor_in, finish, report, start

POINTS = [{"x": number} for number in range(8)]
SETTINGS = [
    Asha(reduction_factor=2),
    Asha(grace=2, reduction_factor=3, brackets=3),
    MedianStopping(min_trials=2),
    HyperBand(max_evaluations=9),
]


def scheduler_of(settings, conductor, folder=None):
    scheduler = SweepScheduler(settings, conductor.state, metric="accuracy", mode="max", seed=7)
    if folder is not None:
        scheduler.replay(read_ledger(folder / "ledger.jsonl"))
    return scheduler


def stub(number):
    return SweepTrial(number, trainable_name="", stub=True)


def step_all(conductor, scheduler, decided, evaluations, *, ends=False):
    """Let each trial that has not ended be evaluated, in turn, as Ray Tune would."""
    for evaluation in evaluations:
        for number in sorted(conductor.state.trials):
            if conductor.state.trials[number].status is not None:
                continue
            score = random.Random(f"{number}:{evaluation}").random()
            result = {"step": evaluation, "score": score}
            decision = scheduler.on_trial_result(None, stub(number), result)
            decided.append((number, evaluation, decision))
            report(conductor, number, evaluation, score, stop=decision == "STOP")
            if decision == "STOP":
                scheduler.on_trial_complete(None, stub(number), {})
                conductor.ended(number, "stopped")


def start_all(conductor, scheduler):
    while (number := start(conductor)) is not None:
        scheduler.on_trial_add(None, stub(number))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.kind)
@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_killed_driver_changes_no_decision(tmp_path, settings, killed_after):
    (tmp_path / "whole").mkdir()
    whole, undisturbed = conductor_in(tmp_path / "whole", POINTS), []
    scheduler = scheduler_of(settings, whole)
    start_all(whole, scheduler)
    step_all(whole, scheduler, undisturbed, range(1, 7))

    first, decided = conductor_in(tmp_path, POINTS), []
    scheduler = scheduler_of(settings, first)
    start_all(first, scheduler)
    step_all(first, scheduler, decided, range(1, killed_after + 1))
    second = conductor_in(tmp_path, POINTS)
    scheduler = scheduler_of(settings, second, tmp_path)
    start_all(second, scheduler)
    step_all(second, scheduler, decided, range(killed_after + 1, 7))
    assert decided == undisturbed
    assert {decision for *_, decision in decided} == {"CONTINUE", "STOP"}


def test_a_trial_of_pbt_takes_over_from_its_own_cell_of_the_grid_alone(tmp_path):
    points = [{"precision": kind, "x": n} for n in range(2) for kind in ("fp32", "bf16")]
    conductor = conductor_in(tmp_path, points)
    scheduler = SweepScheduler(
        Pbt(quantile=0.5),
        conductor.state,
        metric="accuracy",
        mode="max",
        seed=7,
        cell=lambda point: str(point["precision"]).encode(),
    )
    start_all(conductor, scheduler)
    for number, accuracy in ((1, 0.5), (2, 0.9), (3, 0.4), (4, 0.6)):
        told = {"step": 1, "score": accuracy}
        assert scheduler.on_trial_result(None, stub(number), told) == (
            "PAUSE" if number > 2 else "CONTINUE"
        )
        report(conductor, number, 1, accuracy)
    assert [scheduler.exploit_of(number).donor for number in (3, 4)] == [1, 2]


def test_a_trial_goes_on_counting_the_crashes_that_it_had():
    assert SweepTrial(1, num_failures=2, trainable_name="", stub=True).num_failures == 2


def test_repeated_evaluations_are_not_heard_twice(tmp_path):
    conductor = conductor_in(tmp_path, POINTS[:2])
    scheduler = scheduler_of(Asha(reduction_factor=2), conductor)
    start_all(conductor, scheduler)
    report(conductor, 1, 1, 0.9)
    scheduler.on_trial_result(None, stub(1), {"step": 2, "score": 0.9})
    report(conductor, 1, 2, 0.9)
    repeated = scheduler.on_trial_result(None, stub(1), {"step": 2, "score": 0.0})
    assert repeated == "CONTINUE"


def test_without_a_scheduler_every_trial_goes_on(tmp_path):
    conductor, decided = conductor_in(tmp_path, POINTS), []
    scheduler = scheduler_of(NoScheduler(), conductor)
    start_all(conductor, scheduler)
    step_all(conductor, scheduler, decided, range(1, 4))
    assert {decision for *_, decision in decided} == {"CONTINUE"}


def test_a_trial_that_tells_nothing_of_the_metric_goes_on(tmp_path):
    conductor = conductor_in(tmp_path, POINTS[:1])
    scheduler = scheduler_of(Asha(), conductor)
    start_all(conductor, scheduler)
    assert scheduler.on_trial_result(None, stub(1), {}) == "CONTINUE"
    finish(conductor, 1, 0.5)
    scheduler.on_trial_complete(None, stub(1), {})
