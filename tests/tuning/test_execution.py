"""When a driver is done with a sweep, without Ray."""

from kovar.tuning.execution import MAX_SESSIONS, _settled
from tiny_conductor import conductor_in, finish, start

POINTS = [{"precision": "fp32"}, {"precision": "bf16"}]


def test_trials_that_were_lost_get_another_tuner(tmp_path):
    conductor = conductor_in(tmp_path, POINTS)
    assert start(conductor) == 1
    assert not _settled(conductor, None, is_last=False)
    finish(conductor, 1, 0.5)
    assert _settled(conductor, None, is_last=False)
    assert conductor.state.is_finished


def test_trials_that_are_lost_again_and_again_have_failed(tmp_path):
    conductor = conductor_in(tmp_path, POINTS)
    start(conductor)
    assert _settled(conductor, None, is_last=True)
    trial = conductor.state.trials[1]
    assert (trial.status, trial.reason) == (
        "failed",
        f"trials were lost {MAX_SESSIONS} times over",
    )
    assert not conductor.state.is_finished
