"""What runs next in a sweep, and what another driver makes of the ledger."""

import pytest

from kovar.errors import SpecError
from kovar.tuning.ledger import Ledger, read_ledger
from kovar.tuning.spending import Allowance
from kovar.tuning.venue import Room
from tiny_conductor import Clock, conductor_in, finish, report, start

POINTS = [{"x": 1}, {"x": 2}, {"x": 3}]


def statuses(conductor):
    return {number: trial.status for number, trial in sorted(conductor.state.trials.items())}


def test_every_point_is_started_once(tmp_path):
    conductor = conductor_in(tmp_path, POINTS)
    assert [start(conductor) for _ in range(4)] == [1, 2, 3, None]
    assert conductor.is_exhausted


def test_no_more_trials_run_than_there_is_room_for(tmp_path):
    conductor = conductor_in(tmp_path, POINTS, room=Room(2))
    assert [start(conductor) for _ in range(3)] == [1, 2, None]
    finish(conductor, 1, 0.5)
    assert start(conductor) == 3


def test_hardware_that_idles_is_found_a_trial_beyond_those_that_wait(tmp_path):
    points = [{"chip": "L4"}, {"chip": "L4"}, {"chip": "cpu"}]
    conductor = conductor_in(tmp_path, points, room=Room(by_group={"L4": 1, "cpu": 1}))
    assert [start(conductor) for _ in range(3)] == [1, 3, None]
    finish(conductor, 1, 0.5)
    assert start(conductor) == 2


def test_the_search_hears_the_mean_over_the_seeds(tmp_path):
    conductor = conductor_in(tmp_path, POINTS[:1], seeds=3)
    for number in [start(conductor) for _ in range(3)]:
        finish(conductor, number, number / 10)
    assert conductor.heard[-1] == ("tell", 1, 0.2, False)
    assert [
        e.fields["seed"] for e in read_ledger(tmp_path / "ledger.jsonl") if e.kind == "proposed"
    ] == [0, 1, 2]


def test_a_failed_seed_leaves_the_mean_to_the_others(tmp_path):
    conductor = conductor_in(tmp_path, POINTS[:1], seeds=2)
    first, second = start(conductor), start(conductor)
    conductor.ended(first, "diverged", "step 3: the loss is not finite")
    assert conductor.heard[-1] == ("ask", 1)
    finish(conductor, second, 0.75)
    assert conductor.heard[-1] == ("tell", 1, 0.75, False)


def test_a_trial_that_its_place_cannot_hold_is_excluded_with_the_reason(tmp_path):
    def refusal(trial):
        return "no bf16" if trial.number == 2 else None

    conductor = conductor_in(tmp_path, POINTS, refusal=refusal)
    assert [start(conductor) for _ in range(2)] == [1, 3]
    assert conductor.state.trials[2].reason == "no bf16"
    assert ("tell", 2, None, False) in conductor.heard


def test_a_point_that_no_spec_holds_is_refused_and_told(tmp_path):
    conductor = conductor_in(tmp_path, POINTS[:1])
    conductor._trials_of = raising
    assert start(conductor) is None
    assert conductor.heard == [("ask", 1), ("tell", 1, None, False), ("ask", 2)]
    again = conductor_in(tmp_path, POINTS[:1])
    assert again.heard == [("ask", 1), ("tell", 1, None, False)]


def raising(configuration, point):
    raise SpecError("too large", field="x")


def test_another_driver_goes_on_where_the_first_was_killed(tmp_path):
    first = conductor_in(tmp_path, POINTS, room=Room(2))
    start(first), start(first)
    report(first, 1, 10, 0.4)
    finish(first, 2, 0.6)
    second = conductor_in(tmp_path, POINTS, room=Room(2))
    assert second.heard == first.heard
    assert statuses(second) == {1: None, 2: "finished"}
    assert [start(second), start(second)] == [1, 3]
    assert [stay.outcome for stay in second.state.trials[1].stays] == ["interrupted", ""]


def test_what_a_resumed_trial_repeats_is_no_news(tmp_path):
    conductor = conductor_in(tmp_path, POINTS[:1])
    start(conductor)
    assert report(conductor, 1, 10, 0.4)
    assert report(conductor, 1, 20, 0.5)
    again = conductor_in(tmp_path, POINTS[:1])
    start(again)
    assert not report(again, 1, 20, 0.5)
    assert report(again, 1, 30, 0.6)
    assert [e.step for e in again.state.trials[1].history] == [10, 20, 30]


def test_a_trial_whose_end_is_written_is_not_started_again(tmp_path):
    first = conductor_in(tmp_path, POINTS[:2])
    start(first), start(first)
    report(first, 1, 10, 0.1, stop=True)
    end = {"status": "diverged", "reason": "step 3", "metrics": {}}
    first.write("reported", trial=2, stop=False, end=end)
    again = conductor_in(tmp_path, POINTS[:2])
    assert statuses(again) == {1: "stopped", 2: "diverged"}
    assert start(again) is None


def test_a_driver_killed_between_two_seeds_loses_none(tmp_path):
    first = conductor_in(tmp_path, POINTS[:1], seeds=2)
    first._write_proposed(first._trials_of(1, POINTS[0])[0], 1, POINTS[0])
    again = conductor_in(tmp_path, POINTS[:1], seeds=2)
    assert [start(again), start(again), start(again)] == [1, 2, None]


def test_a_used_up_budget_leaves_trials_unfinished_until_it_is_raised(tmp_path):
    clock = Clock()
    first = conductor_in(tmp_path, POINTS[:1], clock=clock, allowance=Allowance(hours=1))
    start(first)
    clock.now += 3600
    first.look()
    assert first.is_exhausted
    first.close()
    assert statuses(first) == {1: "unfinished"}
    clock.now += 9999  # between two drivers nothing is used up
    again = conductor_in(tmp_path, POINTS[:1], clock=clock, allowance=Allowance(hours=2))
    again.look()
    assert start(again) == 1


def test_the_cost_of_what_trials_hold_is_limited(tmp_path):
    clock = Clock()
    conductor = conductor_in(tmp_path, POINTS, clock=clock, allowance=Allowance(cost=10.0))
    start(conductor), start(conductor)
    clock.now += 499
    conductor.look()
    assert conductor.stop_reason is None
    clock.now += 1
    conductor.look()
    assert conductor.stop_reason == "the budget of 10 is used up: the trials cost 10"


def test_failed_trials_get_another_go_where_that_is_asked_for(tmp_path):
    conductor = conductor_in(tmp_path, POINTS[:1])
    conductor.ended(start(conductor), "failed", "its process died")
    conductor.next()
    conductor.close()
    assert start(conductor_in(tmp_path, POINTS[:1])) is None
    again = conductor_in(tmp_path, POINTS[:1], retries=True)
    assert start(again) == 1


def crash(conductor, *, number=1):
    conductor.write("started", trial=number)
    conductor.write("interrupted", trial=number, reason="its process died", lost_node=False)


def test_crashes_under_earlier_drivers_count_against_a_trial(tmp_path):
    first = conductor_in(tmp_path, POINTS[:1])
    assert start(first) == 1
    crash(first)
    again = conductor_in(tmp_path, POINTS[:1])
    assert start(again) == 1
    for _ in range(3):
        crash(again)
    assert again.state.trials[1].num_failures == 4
    last = conductor_in(tmp_path, POINTS[:1])  # killed before it gave the trial up
    assert start(last) is None
    assert statuses(last) == {1: "failed"}


def test_a_larger_budget_forgives_no_crash_and_another_go_does(tmp_path):
    conductor = conductor_in(tmp_path, POINTS[:1])
    assert start(conductor) == 1
    crash(conductor)
    conductor.ended(1, "unfinished")
    assert conductor_in(tmp_path, POINTS[:1]).state.trials[1].num_failures == 1
    conductor_in(tmp_path, POINTS[:1]).write("ended", trial=1, status="failed", reason="x")
    again = conductor_in(tmp_path, POINTS[:1], retries=True)
    assert again.state.trials[1].num_failures == 0


def test_a_lost_node_is_not_counted_as_the_trials_failure(tmp_path):
    conductor = conductor_in(tmp_path, POINTS[:1])
    start(conductor)
    conductor.write("interrupted", trial=1, reason="its node was lost", lost_node=True)
    conductor.write("started", trial=1)
    conductor.write("interrupted", trial=1, reason="its process died", lost_node=False)
    trial = conductor.state.trials[1]
    assert (trial.num_failures, [s.outcome for s in trial.stays]) == (1, ["lost", "interrupted"])


@pytest.mark.parametrize("cut", range(1, 13))
def test_wherever_the_driver_dies_the_search_has_heard_the_same(tmp_path, cut):
    whole = conductor_in(tmp_path, POINTS, room=Room(2))
    play(whole)
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "ledger.jsonl").write_text("".join(lines[:cut]))
    resumed = conductor_in(tmp_path / "cut", POINTS, room=Room(2))
    play(resumed)
    told = [heard for heard in resumed.heard if heard[0] == "tell"]
    assert sorted(told) == sorted(heard for heard in whole.heard if heard[0] == "tell")
    assert set(statuses(resumed).values()) == {"finished"}


def play(conductor):
    """Run every trial to its end, one at a time."""
    while (number := start(conductor)) is not None:
        report(conductor, number, 10, number / 10)
        finish(conductor, number, number / 10)
    conductor.close()


def test_the_ledger_of_a_sweep_can_be_folded_alone(tmp_path):
    play(conductor_in(tmp_path, POINTS))
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        from kovar.tuning.state import SweepState

        assert SweepState.of(ledger.entries).is_finished


def test_a_trial_that_starts_again_leaves_no_stay_open(tmp_path):
    clock = Clock()
    conductor = conductor_in(tmp_path, POINTS[:1], clock=clock)
    start(conductor)
    clock.now += 10
    conductor.write("started", trial=1)
    clock.now += 5
    assert conductor.state.trials[1].seconds(clock.now) == 15


def test_a_trial_that_was_lost_without_its_fault_is_left_to_the_next_driver(tmp_path):
    first = conductor_in(tmp_path, POINTS[:2], room=Room(1))
    start(first)
    first.lost(1)
    assert [start(first), start(first)] == [2, None]
    again = conductor_in(tmp_path, POINTS[:2])
    assert [start(again), start(again)] == [1, 2]
