"""Workers that cannot start: the run says so, and fails after a bounded wait."""

from threading import Event

import pytest
import ray
from ray.util import placement_group_table

from kovar.errors import RunError
from kovar.events import read_events
from kovar.resources import Cluster, NodeType
from tiny_run import run_spec, write_spec
from tiny_version import settings_in

pytestmark = pytest.mark.ray

WITH_GPUS = Cluster((NodeType("gpu-a100", cpus=8, gpu_types=("A100",), num_gpus=8, min_count=1),))
FOUR_GPUS = {"num_workers": 2, "worker": {"kind": "gpu", "type": "A100", "count": 4}}


@pytest.fixture(scope="module")
def given_up(ray_session, tmp_path_factory):
    """Run on the shared Ray what was planned for a cluster that is not there."""
    folder = tmp_path_factory.mktemp("waiting")
    settings = settings_in(folder).model_copy(update={"infeasible_timeout_s": 6.0})
    path = write_spec(folder, resources=FOUR_GPUS)
    before = actors_of_ray_train()
    with pytest.raises(RunError) as failure:
        run_spec(path, settings, in_process=False, cluster=WITH_GPUS)
    (log,) = settings.runs_dir.glob("*/events.jsonl")
    return str(failure.value), list(read_events(log)), before


def waiting_groups():
    return [group for group in placement_group_table().values() if group["state"] == "PENDING"]


def actors_of_ray_train():
    from ray._private.state import actors

    return {
        actor["ActorID"]
        for actor in actors().values()
        if actor["ActorClassName"] in ("TrainController", "PlacementGroupCleaner")
        and actor["State"] != "DEAD"
    }


def test_a_request_that_no_node_holds_fails_with_what_is_missing(given_up):
    message, events, _ = given_up
    assert "no worker could start" in message
    assert "2 × {CPU: 1, GPU: 4, accelerator_type:A100} fits no node" in message
    assert (events[-1]["event"], events[-1]["message"]) == ("failed", message)


def test_meanwhile_the_log_says_what_it_waits_for(given_up):
    _, events, _ = given_up
    (waiting,) = (event for event in events if event["event"] == "waiting")
    assert waiting["seconds"] >= 5
    assert "no node type has A100" in waiting["reason"]


def test_nothing_of_the_run_stays_on_the_cluster(given_up):
    *_, of_earlier_runs = given_up
    assert waiting_groups() == []
    # Ray ends an actor some time after its last handle.
    assert any(actors_of_ray_train() <= of_earlier_runs or Event().wait(0.1) for _ in range(300))
    assert ray.available_resources()["CPU"] == 4
