"""Made-up trials on Ray Tune: what the ledger says of them."""

import os
import threading
from pathlib import Path

import pytest
import ray

from kovar.tuning.feed import Work
from kovar.tuning.ledger import read_ledger
from kovar.tuning.loop import run_trials
from kovar.tuning.nodes import answers
from kovar.tuning.scheduler import Asha, NoScheduler, Pbt
from kovar.tuning.scheduling import SweepScheduler
from kovar.tuning.venue import Room
from tiny_conductor import conductor_in

pytestmark = pytest.mark.ray


def drive(folder, points, *, settings=None, room=None, max_failures=0, take_over=None):
    """Run trials to their ends in `folder`; return the conductor."""
    conductor = conductor_in(folder, points, room=room or Room(2))
    scheduler = SweepScheduler(
        settings or NoScheduler(), conductor.state, metric="accuracy", mode="max", seed=0
    )
    scheduler.replay(read_ledger(folder / "ledger.jsonl"))
    run_trials(
        conductor,
        act,
        work_of=lambda trial: Work(
            {"folder": str(folder), "number": trial.number, **trial.point},
            {"bundles": [{"CPU": 1}]},
            max_failures,
        ),
        scheduler=scheduler,
        metric="accuracy",
        folder=folder / "ray" / f"session-{len(conductor.state.sessions)}",
        take_over=lambda *taken: take_over(conductor, *taken),
    )
    conductor.close()
    return conductor


def act(payload, report):
    """Do what the point says: tell scores, or die a number of times before."""
    folder = Path(payload["folder"])
    deaths = folder / f"deaths-{payload['number']}"
    seen = len(deaths.read_text()) if deaths.exists() else 0
    if seen < payload.get("deaths", 0):
        deaths.write_text("x" * (seen + 1))
        if payload.get("raises"):
            raise RuntimeError("no such luck")
        os.kill(os.getpid(), 9)
    report({"pid": os.getpid(), "chip": "cpu", "precision": "fp32", "num_steps": 3})
    for step, score in enumerate(payload.get("scores", [0.5]), start=1):
        awaited = payload.get("waits", {}).get(str(step))
        while awaited and not (folder / awaited).exists():
            threading.Event().wait(0.02)
        (folder / f"told-{payload['number']}-{step}").touch()
        report({"step": step, "seconds": 0.0, "metrics": {"accuracy": score}})
    return {"status": "finished", "reason": None, "metrics": {"accuracy": payload.get("x", 0.5)}}


def statuses(conductor):
    return [trial.status for _, trial in sorted(conductor.state.trials.items())]


def told(folder, name):
    return [e.fields[name] for e in read_ledger(folder / "ledger.jsonl") if name in e.fields]


def test_trials_follow_each_other_in_the_same_processes(ray_session, tmp_path):
    conductor = drive(tmp_path, [{"x": number / 10} for number in range(8)])
    assert statuses(conductor) == ["finished"] * 8
    assert len(set(told(tmp_path, "pid"))) <= 2
    assert ("tell", 8, 0.7, False) in conductor.heard


def test_a_trial_whose_process_dies_starts_again_and_others_know_nothing_of_it(
    ray_session, tmp_path
):
    points = [{"deaths": 2, "x": 0.1}, {"x": 0.2}]
    conductor = drive(tmp_path, points, max_failures=2)
    assert statuses(conductor) == ["finished"] * 2
    first, second = (conductor.state.trials[number] for number in (1, 2))
    assert first.incidents == ["its process died"] * 2
    assert [stay.outcome for stay in first.stays] == ["interrupted", "interrupted", "finished"]
    assert (second.incidents, len(second.stays)) == ([], 1)


def test_a_trial_that_fails_too_often_is_given_up_with_the_reason(ray_session, tmp_path):
    points = [{"deaths": 9, "raises": True}, {"x": 0.2}]
    conductor = drive(tmp_path, points, max_failures=1)
    assert statuses(conductor) == ["failed", "finished"]
    assert conductor.state.trials[1].reason == "RuntimeError: no such luck"
    assert ("tell", 1, None, False) in conductor.heard


def test_poor_trials_are_ended_early(ray_session, tmp_path):
    points = [{"scores": [s, s, s]} for s in (0.9, 0.8, 0.1, 0.2)]
    conductor = drive(tmp_path, points, settings=Asha(reduction_factor=2), room=Room(1))
    assert statuses(conductor) == ["finished", "stopped", "stopped", "stopped"]
    assert ("tell", 3, 0.1, True) in conductor.heard
    stopped = [e for e in read_ledger(tmp_path / "ledger.jsonl") if e.fields.get("stop")]
    assert [entry.fields["trial"] for entry in stopped] == [2, 3, 4]


def test_a_trial_takes_over_the_fields_of_a_better_one(ray_session, tmp_path):
    # The better one goes on until the other has started again.
    better = {"scores": [0.9, 0.9, 0.9], "waits": {"3": "told-2-3"}}
    poorer = {"scores": [0.1, 0.2], "waits": {"2": "told-1-2"}}
    taken = []

    def take_over(conductor, number, exploit):
        taken.append((number, exploit.donor))
        point = {"scores": [0.1, 0.2, 0.7]}
        conductor.write("exploited", trial=number, donor=exploit.donor, step=2, point=point)
        return True

    settings = Pbt(every=2, quantile=0.5)
    conductor = drive(tmp_path, [better, poorer], settings=settings, take_over=take_over)
    assert statuses(conductor) == ["finished"] * 2
    second = conductor.state.trials[2]
    assert (taken, second.donor) == ([(2, 1)], (1, 2))
    assert [one.metrics["accuracy"] for one in second.history] == [0.1, 0.2, 0.7]
    assert second.incidents == ["goes on from step 2 of trial 1"]


def test_a_node_that_is_there_answers_and_an_unknown_one_does_not(ray_session):
    assert answers(ray.get_runtime_context().get_node_id())
    assert not answers("ab" * 28)
