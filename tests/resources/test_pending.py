"""Work is given up when it waits in vain, or too long; by scripted sights and a clock."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kovar.resources.cluster_state import ClusterState, LiveNode
from kovar.resources.pending import Gang, GiveUp, Sight, Wait, WaitLimits, judge, sight_of

LIMITS = WaitLimits(infeasible_s=30, placement_s=600)
BUSY = Sight("other work holds the nodes")
NEVER = Sight("no GPU here", impossible="no GPU here")
HEAD = LiveNode("head", {"CPU": 4.0}, {"CPU": 4.0}, {})
BUNDLE = {"accelerator_type:A100": 0.001, "GPU": 4.0, "CPU": 1.0}


def played(*scenes, limits=LIMITS):
    """Judge (seconds, sight) scenes in order; return the last decision and its time."""
    wait, now_s = None, 0.0
    for now_s, sight in scenes:
        wait = judge(wait, sight, now_s=now_s, limits=limits)
        if isinstance(wait, GiveUp):
            break
    return wait, now_s


def gang(*, infeasible, workers=2):
    return Gang("pg1", (BUNDLE,) * workers, infeasible=infeasible)


def seen(gangs, *, refusal=None, **state):
    return sight_of(gangs, ClusterState((HEAD,), **state), demand="2 × gpu worker", refusal=refusal)


def test_what_does_not_wait_is_not_judged():
    assert played((0, BUSY), (1, None)) == (None, 1)


def test_an_impossible_request_is_given_up_after_its_bound_with_the_reason():
    decision, at = played(*((float(s), NEVER) for s in range(100)))
    assert (decision.reason, at) == ("no worker could start for 30 s: no GPU here", 30.0)
    assert "kovar plan" in decision.hint


def test_work_that_waits_for_busy_nodes_has_the_longer_bound():
    decision, at = played(*((float(s), BUSY) for s in range(1000)))
    assert decision.reason == "no worker could start for 600 s: other work holds the nodes"
    assert (at, "KOVAR_PLACEMENT_TIMEOUT_S" in decision.hint) == (600.0, True)


def test_a_request_that_becomes_possible_starts_its_short_bound_anew():
    decision, _ = played((0, NEVER), (29, NEVER), (30, BUSY), (31, NEVER), (60, NEVER))
    assert decision == Wait(since_s=0, impossible_since_s=31)


def test_work_that_started_and_waits_again_is_waiting_anew():
    decision, _ = played((0, BUSY), (599, BUSY), (600, None), (601, BUSY), (1200, BUSY))
    assert decision == Wait(since_s=601)


@given(st.lists(st.sampled_from([BUSY, NEVER, None]), max_size=80), st.integers(1, 20))
def test_nothing_waits_longer_than_the_bound_whatever_is_seen(sights, placement_s):
    limits = WaitLimits(infeasible_s=math.inf, placement_s=placement_s)
    waited = 0
    for sight in sights:
        waited = 0 if sight is None else waited + 1
        if waited > placement_s:
            break
    decision, _ = played(*enumerate(sights), limits=limits)
    assert isinstance(decision, GiveUp) == (waited > placement_s)


def test_a_plan_that_finds_no_place_makes_it_impossible():
    sight = seen([gang(infeasible=False)], refusal="no node type has A100")
    assert sight.impossible == (
        "2 × {CPU: 1, GPU: 4, accelerator_type:A100} fits no node that is up or can be added: "
        "no node type has A100"
    )


def test_while_a_node_is_on_its_way_nothing_is_impossible():
    sight = seen([gang(infeasible=True)], refusal="no A100", launching={"gpu-a100": 2})
    assert sight.impossible is None
    assert sight.status.startswith("launching 2 × gpu-a100 for 2 × {CPU: 1, GPU: 4")


def test_without_an_autoscaler_what_fits_no_node_is_impossible():
    assert "none is added" in seen([gang(infeasible=True)]).impossible


@pytest.mark.parametrize(
    ("infeasible", "reported", "impossible"),
    [(True, {"pg1"}, True), (True, set(), False), (False, {"pg1"}, False), (False, set(), False)],
)
def test_with_an_autoscaler_both_it_and_ray_must_say_so(infeasible, reported, impossible):
    sight = seen([gang(infeasible=infeasible)], infeasible=frozenset(reported), has_autoscaler=True)
    assert (sight.impossible is not None) == impossible


def test_failed_launches_are_named_while_the_autoscaler_tries_again():
    failures = ("gpu-a100: quota exceeded",)
    sight = seen([gang(infeasible=True)], failures=failures, has_autoscaler=True)
    assert sight.status.endswith("launches failed: gpu-a100: quota exceeded")


def test_an_elastic_run_has_asked_for_nothing_yet_and_is_named_by_its_demand():
    assert seen([]).status == "2 × gpu worker fits once other work ends"


def test_what_other_work_holds_is_named():
    state = ClusterState((HEAD,))
    sight = sight_of([], state, demand="2 × gpu worker", refusal=None, busy="8 of 8 GPUs")
    assert sight == Sight("2 × gpu worker fits once other work ends (8 of 8 GPUs are in use)")
