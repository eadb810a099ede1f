import time

import pytest

from kovar.errors import PlacementError
from kovar.resources import (
    Cluster,
    CpuRequest,
    Demand,
    GpuRequest,
    NodeType,
    Resources,
    TpuRequest,
    plan_placement,
)

GIB = 1 << 30
HEAD = NodeType("head", 0, min_count=1, max_count=1, is_head=True)
CPU = NodeType("cpu", 8, memory_bytes=20 * GIB, max_count=2)
L4 = NodeType("gpu-l4", 8, memory_bytes=20 * GIB, gpu_types=("L4",), num_gpus=1, max_count=4)
A100 = NodeType("gpu-a100", 24, memory_bytes=80 * GIB, gpu_types=("A100",), num_gpus=2)
TPU = NodeType("tpu", 100, tpu_type="v5e", tpu_topology="2x4", num_tpu_chips=8, max_count=2)
POD = NodeType("pod", 100, tpu_type="v6e", tpu_topology="4x4", num_tpu_chips=4)
CLUSTER = Cluster((HEAD, CPU, L4, A100, TPU, POD), max_workers=6)


def demand(request, number=1, *, most=None, name="training"):
    return Demand(
        name, "resources.worker", request, number, most or number, "resources.num_workers"
    )


@pytest.mark.parametrize(
    ("request_", "number", "expected"),
    [
        (CpuRequest(), 16, {"cpu": 16}),
        (CpuRequest(cpus=3), 4, {"cpu": 4}),
        (CpuRequest(memory=8 * GIB), 3, {"cpu": 3}),
        (CpuRequest(cpus=20), 1, {"gpu-a100": 1}),
        (CpuRequest(cpus=8), 3, {"cpu": 2, "gpu-l4": 1}),
        (GpuRequest(type="A100"), 2, {"gpu-a100": 2}),
        (GpuRequest(count=0.5), 4, {"gpu-l4": 4}),
        (GpuRequest(count=2), 1, {"gpu-a100": 1}),
        (GpuRequest(), 6, {"gpu-l4": 4, "gpu-a100": 2}),
        (TpuRequest(type="v5e", topology="2x4"), 2, {"tpu": 2}),
        (TpuRequest(type="v6e", topology="4x4"), 4, {"pod": 4}),
    ],
)
def test_a_gang_is_placed_on_the_types_that_suit_it(request_, number, expected):
    placement = plan_placement([demand(request_, number)], CLUSTER)
    assert placement.assignments == {"training": expected}


def test_a_placement_counts_the_nodes_and_those_to_be_added():
    types = (HEAD, NodeType("cpu", 4, min_count=1, max_count=3))
    placement = plan_placement([demand(CpuRequest(cpus=2), 5)], Cluster(tuple(types)))
    assert placement.num_nodes == {"cpu": 3}
    assert placement.num_added == {"cpu": 2}
    assert placement.num_workers("training") == 5


def test_an_elastic_demand_grows_as_far_as_fits():
    placement = plan_placement([demand(GpuRequest(type="L4"), 2, most=9)], CLUSTER)
    assert placement.num_workers("training") == 4


def test_cpu_workers_start_no_accelerator_node_in_order_to_be_more():
    placement = plan_placement([demand(CpuRequest(), 2, most=100)], CLUSTER)
    assert placement.assignments["training"] == {"cpu": 16}


def test_demands_that_are_alike_are_told_apart():
    demands = [demand(CpuRequest(), 3, name="training"), demand(CpuRequest(), 4, name="serving")]
    placement = plan_placement(demands, CLUSTER)
    assert [placement.num_workers(one.name) for one in demands] == [3, 4]


def test_a_mix_that_greed_misses_is_found():
    types = (NodeType("node", 10, memory_bytes=10, max_count=2),)
    demands = [
        demand(CpuRequest(cpus=5, memory=1), 2, name="a"),
        demand(CpuRequest(cpus=3, memory=1), 2, name="b"),
        demand(CpuRequest(cpus=2, memory=8), 2, name="c"),
    ]
    placement = plan_placement(demands, Cluster(tuple(types)))
    assert placement.num_nodes == {"node": 2}


def test_the_limit_of_the_whole_cluster_holds_over_all_types():
    types = [HEAD, L4, TPU]
    demands = [
        demand(GpuRequest(type="L4"), 4, name="training"),
        demand(TpuRequest(type="v5e", topology="2x4"), 1, name="serving"),
    ]
    with pytest.raises(PlacementError, match="does not fit beside training") as caught:
        plan_placement(demands, Cluster(tuple(types)))
    assert caught.value.hint == "raise the cluster's max_workers from 4 to 5"
    assert plan_placement(demands[:1], Cluster(tuple(types))).num_added == {"gpu-l4": 4}


def test_a_demand_can_be_made_from_a_resources_block():
    resources = Resources(num_workers={"min": 2, "max": 3}, worker=GpuRequest())
    made = Demand.of(resources, name="training", field="training.resources")
    assert (made.num_min, made.num_max) == (2, 3)
    assert made.field == "training.resources.worker"
    assert made.num_field == "training.resources.num_workers"


@pytest.mark.parametrize(
    "demands",
    [
        [demand(CpuRequest()), demand(CpuRequest())],
        [Demand("a", "f", CpuRequest(), 0, 1)],
        [Demand("a", "f", CpuRequest(), 2, 1)],
        [Demand("a", "f", TpuRequest(type="v6e", topology="4x4"), 3, 4)],
    ],
)
def test_demands_that_no_spec_can_hold_are_a_programming_error(demands):
    with pytest.raises(ValueError, match=r"workers|demands"):
        plan_placement(demands, CLUSTER)


def test_a_hundred_workers_on_a_thousand_nodes_are_planned_at_once():
    types = (
        NodeType("cpu", 96, max_count=500),
        NodeType("gpu", 96, gpu_types=("A100",), num_gpus=8, max_count=500),
    )
    demands = [
        demand(GpuRequest(type="A100", count=8), 40, name="training"),
        demand(GpuRequest(count=0.3), 40, name="serving"),
        demand(CpuRequest(cpus=7), 20, name="sweep"),
    ]
    plan_placement(demands, Cluster(tuple(types)))
    started = time.perf_counter()
    plan_placement(demands, Cluster(tuple(types)))
    assert time.perf_counter() - started < 0.5
