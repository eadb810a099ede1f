"""A running cluster: what is up, what its autoscaler can add, and what is in use."""

from pathlib import Path

import pytest

from kovar.resources import Cluster, NodeType, live_cluster, read_cluster
from kovar.resources.cluster_state import ClusterState, LiveNode
from kovar.resources.live_cluster import Monitor, describe, find_monitor

REPOSITORY = Path(__file__).parents[2]
ADDRESS = "10.0.0.1:6379"
ONLY_WATCHES = Monitor(adds_nodes=False)


def node(type_name="", *, labels=None, available=None, **resources):
    resources = {name: float(amount) for name, amount in resources.items()}
    return LiveNode(type_name, resources, available or resources, labels or {})


def described(*nodes, monitor=None, **state):
    return describe(ClusterState(nodes, **state), monitor)


def test_equal_nodes_are_of_one_type_with_the_least_memory_of_them():
    (kind,) = described(node(CPU=8, memory=2e9), node(CPU=8, memory=1e9)).node_types
    assert (kind.cpus, kind.memory_bytes) == (8.0, 10**9)
    assert (kind.min_count, kind.max_count) == (2, 2)


def test_gpus_labels_and_resources_of_ones_own_are_recognized():
    (kind,) = described(
        node(
            **{"CPU": 12, "GPU": 2, "accelerator_type:A100": 1, "FPGA": 3, "node:10.0.0.2": 1},
            labels={"zone": "a", "ray.io/node-id": "ad60", "kovar.dev/price-per-hour": "3.5"},
        )
    ).node_types
    assert (kind.gpu_types, kind.num_gpus, kind.custom_resources) == (("A100",), 2, {"FPGA": 3})
    assert (kind.labels["zone"], kind.price_per_hour) == ("a", 3.5)
    assert "ray.io/node-id" not in kind.labels


def test_the_hosts_of_a_tpu_slice_are_one_node_and_half_a_slice_is_none():
    def host(slice_name):
        return node(
            **{"CPU": 8, "TPU": 4, "accelerator_type:TPU-V4": 1, slice_name: 1},
            labels={"ray.io/tpu-topology": "2x2x2", "ray.io/tpu-slice-name": slice_name},
        )

    (kind,) = described(host("a"), host("a"), host("b")).node_types
    assert (kind.tpu_type, kind.tpu_topology, kind.num_tpu_chips) == ("v4", "2x2x2", 4)
    assert (kind.min_count, kind.custom_resources) == (1, {})


def test_what_other_work_holds_is_said_and_still_counts_as_free():
    gpus = {"CPU": 8, "GPU": 4, "accelerator_type:L4": 1}
    cluster = described(node(**gpus), node(**gpus, available={"CPU": 6.0, "GPU": 1.0}))
    assert cluster.busy == "3 of 8 GPUs, 2 of 16 CPUs"
    assert cluster.node_types[0].max_count == 2


def test_without_the_autoscalers_limits_a_cluster_may_grow():
    assert described(node("small", CPU=8), has_autoscaler=True).can_grow
    assert not described(node(CPU=8), has_autoscaler=False).can_grow
    assert not described(node("small", CPU=8), has_autoscaler=True, monitor=ONLY_WATCHES).can_grow


def test_the_declaration_gives_the_limits_and_nodes_that_are_up_count_as_such():
    declared = read_cluster(REPOSITORY / "cluster.yaml")
    worker = next(kind for kind in declared.node_types if not kind.is_head and kind.max_count > 1)
    up = node(worker.name, CPU=worker.cpus, memory=1e9)
    cluster = described(up, node(CPU=1), monitor=Monitor(adds_nodes=True, declared=declared))
    *types, stranger = cluster.node_types
    assert [kind.name for kind in types] == [kind.name for kind in declared.node_types]
    assert {kind.name: kind for kind in types}[worker.name].min_count == worker.min_count + 1
    assert (stranger.cpus, stranger.max_count) == (1.0, 1)
    assert (cluster.max_workers, cluster.can_grow) == (declared.max_workers, False)


def write_monitor(root, *options):
    (root / "proc" / "77").mkdir(parents=True)
    command = ["python", "/ray/autoscaler/v2/monitor.py", f"--gcs-address={ADDRESS}", *options]
    (root / "proc" / "77" / "cmdline").write_text("\0".join(command))


def test_the_monitor_of_this_cluster_names_the_autoscalers_file(tmp_path):
    write_monitor(tmp_path, f"--autoscaling-config={REPOSITORY / 'cluster.yaml'}")
    declared = read_cluster(REPOSITORY / "cluster.yaml")
    assert find_monitor(ADDRESS, tmp_path) == Monitor(adds_nodes=True, declared=declared)
    assert find_monitor("10.0.0.9:6379", tmp_path) is None


def test_a_monitor_without_a_file_only_watches(tmp_path):
    write_monitor(tmp_path)
    assert find_monitor(ADDRESS, tmp_path) == ONLY_WATCHES


def test_a_file_that_cannot_be_read_leaves_the_limits_unknown(tmp_path, caplog):
    (tmp_path / "cluster.yaml").write_text("provider: {}\n")
    write_monitor(tmp_path, f"--autoscaling-config={tmp_path / 'cluster.yaml'}")
    found = find_monitor(ADDRESS, tmp_path)
    assert found == Monitor(adds_nodes=True)
    assert described(node(CPU=1), monitor=found).can_grow
    assert "limits are unknown" in caplog.text


@pytest.mark.ray
def test_a_local_cluster_has_its_nodes_and_cannot_grow(ray_session):
    cluster = live_cluster()
    (only,) = cluster.node_types
    assert (only.cpus, only.max_count, cluster.can_grow) == (4.0, 1, False)
    assert isinstance(cluster, Cluster)
    assert isinstance(only, NodeType)
