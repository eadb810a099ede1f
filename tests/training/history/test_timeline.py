"""Where the time went: every second belongs to one phase, whatever the log looks like."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.events import FIELDS
from kovar.training.history import MEANING, Phase, make_timeline
from story import CRASHED, START, UNDISTURBED, started, step, told


def test_an_undisturbed_run_is_told_second_for_second():
    assert make_timeline(UNDISTURBED).seconds == {
        "preparing": 3, "downloading": 2, "tokenizing": 3, "queued": 1, "starting": 10,
        "placing": 30, "compiling": 4, "stepping": 20, "checkpointing": 2, "evaluating": 5,
        "registering": 3,
    }  # fmt: skip
    assert make_timeline(UNDISTURBED).total_s == 83


def test_a_crash_costs_from_the_last_sign_until_its_step_is_reached_again():
    split = make_timeline(CRASHED).seconds
    assert split["recovering"] == 86 - 34
    assert split["stepping"] == 40
    assert sum(split.values()) == 96


def test_time_in_which_nothing_ran_is_told_apart_from_the_steps_that_are_repeated():
    events = [
        told(0, "queued"), told(1, "planned"), started(2), step(12, 10), step(22, 20),
        told(1000, "queued"), told(1000, "prepared", seconds=5, spans={}),
        told(1001, "planned"), started(1003, attempt=2),
        told(1004, "resumed", rank=0, attempt=2, step=10, ignored=[]),
        step(1014, 20, attempt=2), step(1024, 30, attempt=2),
    ]  # fmt: skip
    split = make_timeline(events).seconds
    assert split["stopped"] == 1000 - 5 - 22
    assert split["preparing"] == 5
    assert split["recovering"] == 10
    assert split["stepping"] == 30


def test_a_run_that_still_waits_for_hardware_has_waited_until_now():
    split = make_timeline(UNDISTURBED[:4], until=START + 600).seconds
    assert split["placing"] == 596


def test_a_log_of_an_older_kovar_still_tells_steps_checkpoints_and_evaluations():
    older = [{k: v for k, v in event.items() if k != "seconds" or event["event"] != "evaluated"}
             for event in UNDISTURBED
             if event["event"] not in ("prepared", "placing", "placed", "compiled")]  # fmt: skip
    split = make_timeline(older).seconds
    assert split["starting"] == 44
    assert split["stepping"] == 20
    assert split["checkpointing"] == 2
    assert split["evaluating"] == 5


def test_a_final_evaluation_of_an_earlier_best_step_is_no_recovery():
    earlier = [e | {"step": 10} if e.get("final") else e for e in UNDISTURBED]
    assert make_timeline(earlier).seconds == make_timeline(UNDISTURBED).seconds


def test_a_checkpoint_that_is_told_late_is_no_recovery():
    events = [
        told(0, "planned"), started(2), step(12, 10), step(22, 20),
        told(23, "checkpoint", rank=0, step=10, seconds=1, write_seconds=11), step(32, 30),
    ]  # fmt: skip
    split = make_timeline(events).seconds
    assert split["checkpointing"] == 1
    assert "recovering" not in split


def test_after_a_notice_the_run_recovers_until_it_steps_again():
    events = [
        told(0, "planned"), started(2), step(12, 10),
        told(13, "preempted", rank=0, step=10, reason="SIGTERM"), told(20, "placing"),
        told(25, "placed"), started(30, attempt=2),
        told(31, "resumed", rank=0, attempt=2, step=10, ignored=[]), step(41, 20, attempt=2),
    ]  # fmt: skip
    split = make_timeline(events).seconds
    assert split["recovering"] == 31 - 13
    assert split["stepping"] == 10 + 1 + 10


def test_other_ranks_do_not_count_twice():
    extra = [told(t, "started", rank=1, num_steps=40) for t in (38, 41)]
    assert make_timeline([*UNDISTURBED, *extra]) == make_timeline(UNDISTURBED)


def test_an_empty_log_took_no_time():
    assert make_timeline([]).total_s == 0
    assert make_timeline([]).seconds == {}


def test_lines_without_a_readable_time_are_passed_over():
    spoiled = [*UNDISTURBED, {"event": "step"}, {"event": "step", "time": "yesterday", "rank": 0}]
    assert make_timeline(spoiled) == make_timeline(UNDISTURBED)


@pytest.mark.parametrize("phase", MEANING)
def test_every_phase_says_what_it_means(phase):
    assert MEANING[phase]
    assert set(MEANING) == set(Phase.__args__)
    guide = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    assert re.search(rf"^\| (\w+, )?{phase}(, \w+)? \|", guide, re.MULTILINE)


EVENT = st.fixed_dictionaries(
    {
        "seconds": st.floats(0, 1e5),
        "event": st.sampled_from([*FIELDS, "of a newer Kovar"]),
        "rank": st.sampled_from([-1, 0, 1]),
        "step": st.integers(0, 50),
        "took": st.floats(-10, 1e6),
    }
)


@given(st.lists(EVENT, max_size=30), st.floats(0, 2e5), st.integers())
def test_the_phases_of_any_log_add_up_and_leave_no_gap(lines, until, seed):
    events = [
        told(line["seconds"], line["event"], rank=line["rank"], step=line["step"],
             **({"took": 0} if line["took"] < 0 else {"seconds": line["took"]}),
             spans={"tokenizing train": line["took"], "x": "?"})
        for line in lines
    ]  # fmt: skip
    random.Random(seed).shuffle(events)
    timeline = make_timeline(events, until=START + until)
    assert sum(timeline.seconds.values()) == pytest.approx(timeline.total_s, abs=1e-4)
    assert all(span.seconds > 0 for span in timeline.spans)
    pairs = zip(timeline.spans, timeline.spans[1:], strict=False)
    assert all(before.end == after.start for before, after in pairs)
