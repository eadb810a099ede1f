"""What a running cluster says of itself, from the messages of both versions of the autoscaler."""

import socket

import pytest
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply, NodeStatus

from kovar.errors import UserError
from kovar.resources.cluster_state import named_cluster, parse_state


def reply():
    status = GetClusterStatusReply()
    node = status.cluster_resource_state.node_states.add(status=NodeStatus.RUNNING)
    node.total_resources.update(
        {"CPU": 8, "GPU": 2, "GPU_group_0_abc": 1, "bundle_group_abc": 1000}
    )
    node.available_resources.update({"CPU": 8, "GPU": 1})
    node.labels["ray.io/node-group"] = "gpu"
    status.cluster_resource_state.node_states.add(status=NodeStatus.DEAD)
    return status


def test_nodes_are_those_that_live_without_the_resources_of_placement_groups():
    (node,) = parse_state(reply().SerializeToString(), {}).nodes
    assert (node.type_name, node.resources) == ("gpu", {"CPU": 8, "GPU": 2})
    assert node.available == {"CPU": 8, "GPU": 1}


def test_the_autoscaler_tells_launches_failures_and_what_it_cannot_place():
    status = reply()
    scaling = status.autoscaling_state
    scaling.autoscaler_state_version = 3
    scaling.pending_instance_requests.add(ray_node_type_name="gpu", count=2)
    scaling.pending_instances.add(ray_node_type_name="gpu")
    scaling.failed_instance_requests.add(ray_node_type_name="tpu", reason="no quota")
    scaling.infeasible_gang_resource_requests.add(details="abc01000000:PACK|PENDING")
    state = parse_state(status.SerializeToString(), {})
    assert state.launching == {"gpu": 3}
    assert state.failures == ("tpu: no quota",)
    assert (state.infeasible, state.has_autoscaler) == ({"abc01000000"}, True)


def test_the_older_autoscaler_tells_its_launches_in_a_report():
    report = {
        "active_nodes": {"head": 1},
        "idle_nodes": None,
        "pending_launches": {"gpu": 1},
        "pending_nodes": [["10.0.0.2", "gpu", "setting-up"]],
        "failed_nodes": [],
    }
    state = parse_state(reply().SerializeToString(), {"autoscaler_report": report})
    assert (state.launching, state.has_autoscaler) == ({"gpu": 2}, True)


def test_a_monitor_that_only_watches_is_no_autoscaler():
    report = {"active_nodes": {"node_ad60a542": 1}, "pending_launches": {}, "pending_nodes": []}
    state = parse_state(reply().SerializeToString(), {"autoscaler_report": report})
    assert not state.has_autoscaler


def test_an_address_where_nothing_listens_is_refused_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(UserError, match=rf"no Ray cluster answers(.|\n)*{port}(.|\n)*ray start"):
        named_cluster(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["ray://head:10001", "http://127.0.0.1:8265"])
def test_an_address_of_another_protocol_is_refused(address):
    with pytest.raises(UserError, match="only host:port"):
        named_cluster(address)
