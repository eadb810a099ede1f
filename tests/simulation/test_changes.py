from dataclasses import replace

from kovar.resources import Cluster, NodeType
from kovar.simulation import ClusterStatus, Launch, Node, Pending
from kovar.simulation.changes import changes, described
from kovar.simulation.reasons import UNDECIDED, explained

HEAD = NodeType("head", 0, min_count=1, max_count=1, is_head=True)
GPU = NodeType("gpu", 8, num_gpus=2, max_count=3, labels={"zone": "a"})
CLUSTER = Cluster((HEAD, GPU))
UP = Node("gpu-1", "gpu", "f0", "busy", {"CPU": 8.0, "GPU": 2.0, "node:here": 1.0}, {}, 0.0, {})
EMPTY = ClusterStatus(nodes=(), launching=(), pending=())
WAITING = Pending("task or actor", ({"GPU": 2.0},), ("",))


def told(before: ClusterStatus | None, after: ClusterStatus) -> list[str]:
    return changes(before, after, idle_timeout_s=30)


def test_a_launch_and_an_arrival_are_told_once():
    starting = replace(EMPTY, launching=(Launch("gpu", 2),))
    assert told(EMPTY, starting) == ["starting 2 × gpu"]
    assert told(starting, starting) == []
    assert told(starting, replace(EMPTY, nodes=(UP,))) == ["gpu-1 is up: CPU: 8, GPU: 2"]


def test_a_node_that_was_idle_is_stopped_and_a_busy_one_is_lost():
    busy = replace(EMPTY, nodes=(UP,))
    assert told(busy, EMPTY) == ["gpu-1 is lost, with whatever ran on it"]
    idle = replace(EMPTY, nodes=(replace(UP, state="idle", idle_s=29.0),))
    assert told(idle, EMPTY) == ["gpu-1 was idle for 30 s and is stopped"]


def test_what_waits_is_told_when_its_reason_is_known():
    undecided = replace(EMPTY, pending=(replace(WAITING, reason=UNDECIDED),))
    assert told(EMPTY, undecided) == []
    known = replace(EMPTY, pending=(replace(WAITING, reason="no"),))
    assert told(undecided, known) == ["waiting: task or actor {GPU: 2}: no"]


def test_progress_of_the_same_wait_is_not_told_again():
    one, two = (
        replace(EMPTY, pending=(replace(WAITING, reason=f"starting {n} × gpu"),)) for n in (1, 2)
    )
    assert told(one, two) == []


def test_a_failed_launch_is_told():
    assert told(None, replace(EMPTY, failures=("gpu: no quota",))) == [
        "launch failed: gpu: no quota"
    ]


def test_a_group_is_described_by_its_bundles():
    group = Pending(
        "placement group", ({"CPU": 1.0},) * 2 + ({"memory": 2**31},), ("", "", "zone=a"), "PACK"
    )
    expected = "placement group (pack) 2 × {CPU: 1} + {memory: 2.0 GiB} on zone=a"
    assert described(group) == expected


def test_a_request_that_no_type_holds_names_what_is_missing():
    big = replace(WAITING, bundles=({"GPU": 4.0},))
    assert explained(big, EMPTY, CLUSTER) == "no node type has GPU: 4"
    elsewhere = replace(WAITING, selectors=("zone=in(b,c)",))
    assert explained(elsewhere, EMPTY, CLUSTER) == "no node type has GPU: 2 with zone=in(b,c)"


def test_a_request_waits_for_nodes_that_start_or_are_in_use():
    assert explained(WAITING, EMPTY, CLUSTER) == UNDECIDED
    starting = replace(EMPTY, launching=(Launch("gpu", 1),))
    assert explained(WAITING, starting, CLUSTER) == "starting 1 × gpu"
    full = replace(WAITING, infeasible=True, selectors=("zone=!b",))
    reason = "no node is free, and no more may be added: 1 of 3 gpu nodes are up"
    assert explained(full, replace(EMPTY, nodes=(UP,)), CLUSTER) == reason


def test_a_group_that_does_not_fit_names_the_types_of_all_its_bundles():
    bundles = ({"GPU": 2.0}, {"memory": 1.0})
    other = NodeType("cpu", 4, memory_bytes=8, max_count=2)
    group = Pending("placement group", bundles, ("", ""), "PACK", infeasible=True)
    reason = explained(group, replace(EMPTY, nodes=(UP,)), Cluster((HEAD, GPU, other)))
    assert reason == (
        "the group does not fit as a whole: 1 of 3 gpu nodes are up, 0 of 2 cpu nodes are up"
    )


def test_hosts_that_are_not_up_yet_are_waited_for():
    rest = replace(WAITING, selectors=("ray.io/tpu-slice-name=tpu-1",), infeasible=True)
    assert explained(rest, EMPTY, CLUSTER) == "waiting for the rest of tpu-1"
