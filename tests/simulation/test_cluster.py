import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest

from kovar.errors import NotFoundError
from kovar.events import read_events
from kovar.resources import Cluster, Demand, GpuRequest, NodeType, plan_placement
from kovar.simulation import ClusterStatus, SimulatedCluster
from kovar.training.folder import RunFolder
from kovar.training.history import read_history
from simulated_work import Client
from tiny_run import run_spec, write_spec
from tiny_version import settings_in

pytestmark = pytest.mark.cluster

IDLE_TIMEOUT_S = 4
SOON_S = 60
GIB = 1 << 30
CLUSTER = Cluster(
    (
        NodeType("head", 0, memory_bytes=GIB, min_count=1, max_count=1, is_head=True),
        NodeType("cpu", 2, memory_bytes=GIB, max_count=2),
        NodeType("gpu-l4", 4, memory_bytes=GIB, gpu_types=("L4",), num_gpus=1, max_count=2),
        NodeType(
            "gpu-spot", 4, memory_bytes=GIB, gpu_types=("T4",), num_gpus=1, max_count=1,
            labels={"kovar.dev/spot": "true"},
            spot=True, accelerator_memory_bytes=15 * GIB,
        ),
        NodeType(
            "tpu-v4", 8, memory_bytes=GIB, tpu_type="v4", tpu_topology="2x2x2", num_tpu_chips=4,
            max_count=1,
        ),
    ),
    max_workers=6,
    origin="a test",
)  # fmt: skip


@pytest.fixture(scope="module")
def simulated() -> Iterator[SimulatedCluster]:
    with SimulatedCluster(CLUSTER, idle_timeout_s=IDLE_TIMEOUT_S, dashboard=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(simulated: SimulatedCluster) -> Iterator[Client]:
    with Client.started(simulated.environment) as process:
        yield process


def names(status: ClusterStatus) -> set[str]:
    return {node.id for node in status.nodes}


def only_the_head(status: ClusterStatus) -> bool:
    return names(status) == {"head"} and not status.launching


def waits_for(text: str) -> Callable[[ClusterStatus], bool]:
    return lambda status: any(text in pending.reason for pending in status.pending)


def test_a_gpu_request_brings_the_right_node_up_and_an_idle_one_goes(simulated, client):
    [[node, cards]] = client.call("run", {"num_gpus": 1, "num_cpus": 1, "accelerator_type": "L4"})
    assert node.startswith("gpu-l4-")
    assert cards == [0]
    assert names(simulated.status()) == {"head", node}
    simulated.wait(only_the_head, timeout_s=SOON_S)


def test_a_gang_waits_for_all_or_none(simulated, client):
    answer = client.start("gang", [{"GPU": 1}] * 4, 4.0)
    status = simulated.wait(waits_for("does not fit as a whole"), timeout_s=SOON_S)
    assert [pending.strategy for pending in status.pending] == ["STRICT_SPREAD"]
    assert answer.result() is False
    assert only_the_head(simulated.status())
    assert client.call("gang", [{"GPU": 1}] * 3, float(SOON_S)) is True
    assert len(simulated.nodes()) == 4


def test_requests_by_gpu_memory_share_a_card_of_the_first_type_that_there_is(client):
    request = GpuRequest(type=("H100", "T4"), gpu_memory=7 * GIB, spot=True)
    plan = plan_placement([Demand("replicas", "worker", request, 2, 2)], CLUSTER)
    concrete = plan.requests["replicas"]
    assert concrete.type == ("T4",)
    one, other = client.call("run_request", concrete.model_dump(mode="json"), 2)
    assert one == other
    assert one[0].startswith("gpu-spot-")


def test_labels_choose_the_node_type(client):
    wanted = {"num_gpus": 1, "label_selector": {"kovar.dev/spot": "true"}}
    assert client.call("run", wanted)[0][0].startswith("gpu-spot-")
    wanted = {"num_gpus": 1, "label_selector": {"kovar.dev/spot": "!true"}}
    assert client.call("run", wanted)[0][0].startswith("gpu-l4-")


def test_a_slice_is_reserved_whole_and_goes_as_one(simulated, client):
    assert sorted(client.call("tpu_slice")) == [["tpu-v4-1", "0"], ["tpu-v4-1", "1"]]
    assert {"tpu-v4-1-host-0", "tpu-v4-1-host-1"} <= names(simulated.status())
    simulated.kill_node("tpu-v4-1-host-1")
    simulated.wait(lambda status: not status.of_type("tpu-v4"), timeout_s=SOON_S)


def test_a_request_that_no_node_type_holds_is_told_from_one_that_waits(simulated, client):
    answer = client.start("gang", [{"GPU": 8}], 4.0)
    status = simulated.wait(waits_for("no node type has"), timeout_s=SOON_S)
    assert status.pending[0].reason == "no node type has GPU: 8"
    assert answer.result() is False


def test_workers_whose_nodes_are_on_their_way_are_not_given_up(simulated, client):
    simulated.wait(only_the_head, timeout_s=SOON_S)
    asked = {"type": ["L4"], "count": 1}
    assert client.call("watched", asked, 2, 0.1) == [True, None]


def test_workers_that_no_node_type_holds_are_given_up_with_the_reason(client):
    placed, reason = client.call("watched", {"type": ["L4"], "count": 8}, 1, 2.0)
    assert placed is False
    assert "1 × {CPU: 1, GPU: 8, accelerator_type:L4} fits no node that is up" in reason


def test_a_node_killed_under_a_run_is_replaced_and_the_weights_are_the_same(
    simulated, undisturbed, tmp_path
):
    spec, home = write_spec(tmp_path, **RUN), tmp_path / "home"
    with Client.started({**simulated.environment, "KOVAR_HOME": str(home)}) as trainer:
        answer = trainer.start("fine_tune", str(spec), str(home))
        await_step(home, 1, answer)
        [lost] = simulated.status().of_type("gpu-l4")
        simulated.kill_node(lost.id)
        simulated.wait(lambda status: replaced(status, lost.id), timeout_s=SOON_S)
        result = answer.result(timeout=2 * SOON_S)
    started = [event for event in result["events"] if event["event"] == "started"]
    assert [event["attempt"] for event in started] == [1, 2]
    assert all(event["device"] == "cpu" and "SIMULATED" in event["reason"] for event in started)
    assert result["metrics"]["accuracy"] > 0.9
    assert_recovered(home, undisturbed)


def test_a_run_on_a_node_that_is_drained_moves_and_repeats_nothing(
    simulated, client, undisturbed, tmp_path
):
    spec, home = write_spec(tmp_path, **RUN, max_failures=0), tmp_path / "home"
    with Client.started({**simulated.environment, "KOVAR_HOME": str(home)}) as trainer:
        answer = trainer.start("fine_tune", str(spec), str(home))
        await_step(home, 1, answer)
        # The node's end is further away than the answer is waited for.
        assert client.call("drain", "accelerator_type:L4", 20 * SOON_S) == 1
        events = answer.result(timeout=2 * SOON_S)["events"]
    [preempted] = [event for event in events if event["event"] == "preempted"]
    assert "Ray drains" in preempted["reason"]
    assert_recovered(home, undisturbed, repeated=0)


def test_a_run_whose_driver_is_killed_goes_on_when_it_is_submitted_again(
    simulated, undisturbed, tmp_path
):
    spec, home = write_spec(tmp_path, **RUN), tmp_path / "home"
    environment = {**simulated.environment, "KOVAR_HOME": str(home)}
    with Client.started(environment) as killed:
        lost = killed.start("fine_tune", str(spec), str(home))
        await_step(home, random.Random(2).randrange(INTERVAL, 5 * INTERVAL), lost)
    assert isinstance(lost.exception(), EOFError)
    with Client.started(environment) as trainer:
        trainer.start("fine_tune", str(spec), str(home)).result(timeout=2 * SOON_S)
    assert_recovered(home, undisturbed)


INTERVAL = 20
RUN = {
    "resources": {"num_workers": 1, "worker": {"kind": "gpu", "type": "L4", "cpus": 1}},
    "training": {
        "epochs": 60, "max_tokens": 128, "learning_rate": 0.005,
        "checkpoint_every": INTERVAL, "evaluate_every": 1000,
    },
    "precision": "fp16",
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    """Train the same in this process, without Ray; return the digest of the weights."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOVAR_SIMULATED", "1")
        result = run_spec(write_spec(folder, **RUN), settings_in(folder), cluster=CLUSTER)
    return str(result.version.manifest.training["weights_digest"])


def assert_recovered(home: Path, undisturbed: str, *, repeated: int = INTERVAL) -> None:
    """See that a run was interrupted once, that it cost little and that nothing shows it."""
    [folder] = map(RunFolder, (home / "runs").iterdir())
    events = list(read_events(folder.events))
    durable = [e["step"] for e in events if e["event"] == "checkpoint" and e["attempt"] == 1]
    _, last = read_history(folder).attempts
    assert last.resumed_from >= max(durable)
    assert last.num_repeated <= repeated
    assert [e["weights_digest"] for e in events if e["event"] == "finished"] == [undisturbed]
    left = {path.name for path in folder.root.iterdir() if path.is_dir()}
    assert left == {"attempts", "model", "tensorboard"}


def await_step(home: Path, step: int, answer: Future[Any]) -> None:
    """Wait until a run has reached a step and saved a checkpoint."""

    def seen(kind: str) -> int:
        logs = home.glob("runs/*/events.jsonl")
        events = (event for log in logs for event in read_events(log))
        return max((event["step"] for event in events if event["event"] == kind), default=0)

    while not answer.done() and not (seen("checkpoint") and seen("step") >= step):
        wait([answer], timeout=0.02)


def replaced(status: ClusterStatus, lost: str) -> bool:
    up = [node.id for node in status.of_type("gpu-l4")]
    return bool(up) and lost not in up


def test_only_a_node_that_is_up_can_be_killed(simulated):
    with pytest.raises(NotFoundError, match="no such worker node is up"):
        simulated.kill_node("head")
