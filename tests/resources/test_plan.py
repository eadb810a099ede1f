import subprocess
import sys
from dataclasses import replace

import pytest

from kovar.errors import PlacementError
from kovar.resources import (
    Cluster,
    CpuRequest,
    Demand,
    GpuRequest,
    NodeGroup,
    NodeType,
    Resources,
    TpuRequest,
    plan_placement,
)
from kovar.resources.declaration import GPU_MEMORY_LABEL

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
        (GpuRequest(), 4, {"gpu-l4": 4}),
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
        plan_placement(demands, Cluster(tuple(types), max_workers=4))
    assert caught.value.hint.startswith("raise the cluster's max_workers from 4 to 5")
    assert plan_placement(demands[:1], Cluster(tuple(types), max_workers=4)).num_added == {
        "gpu-l4": 4
    }


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


def test_a_hundred_workers_on_a_thousand_nodes_need_no_solver():
    code = """if True:
        import sys
        from kovar.resources import Cluster, CpuRequest, Demand, GpuRequest, NodeType
        from kovar.resources import plan_placement
        kinds = (
            NodeType("cpu", 96, max_count=500),
            NodeType("gpu", 96, gpu_types=("A100",), num_gpus=8, max_count=500),
        )
        demands = [
            Demand("training", "f", GpuRequest(type="A100", count=8), 40, 40),
            Demand("serving", "f", GpuRequest(count=0.3), 40, 60),
            Demand("sweep", "f", CpuRequest(cpus=7), 20, 30),
        ]
        plan_placement(demands, Cluster(kinds))
        print("scipy" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_list_of_types_is_tried_in_its_order():
    request = GpuRequest(type=["H100", "A100", "L4"])
    two = plan_placement([demand(request, 2)], CLUSTER)
    four = plan_placement([demand(request, 4)], CLUSTER)
    assert two.requests["training"] == GpuRequest(type="A100")
    assert four.assignments == {"training": {"gpu-l4": 4}}


def test_the_first_demand_has_the_first_choice():
    either = GpuRequest(type=["A100", "L4"], count=1)
    demands = [demand(either, 2, name="training"), demand(either, 2, name="serving")]
    placement = plan_placement(demands, CLUSTER)
    assert placement.assignments == {"training": {"gpu-a100": 2}, "serving": {"gpu-l4": 2}}


def test_a_later_demand_without_a_choice_moves_an_earlier_one():
    demands = [
        demand(GpuRequest(type=["A100", "L4"]), 2, name="training"),
        demand(GpuRequest(type="A100"), 1, name="serving"),
    ]
    placement = plan_placement(demands, CLUSTER)
    assert placement.assignments == {"training": {"gpu-l4": 2}, "serving": {"gpu-a100": 1}}


def test_any_gpu_is_of_the_type_that_costs_least():
    dear, cheap = replace(L4, price_per_hour=9.0), replace(A100, price_per_hour=3.0)
    placement = plan_placement([demand(GpuRequest(), 2)], Cluster((HEAD, dear, cheap)))
    assert placement.requests["training"].type == ("A100",)


def test_gpus_of_no_declared_type_are_asked_for_without_one():
    nameless = replace(L4, gpu_types=())
    placement = plan_placement([demand(GpuRequest(), 2)], Cluster((nameless,)))
    assert placement.requests["training"].type == ()


def test_gpu_memory_becomes_a_share_rounded_up_to_what_ray_counts():
    node = replace(L4, accelerator_memory_bytes=3 * GIB)
    wanted = demand(GpuRequest(gpu_memory=GIB), 4)
    placement = plan_placement([wanted], Cluster((node,)))
    assert placement.requests["training"] == GpuRequest(type="L4", count=0.3334)
    assert placement.num_nodes == {"gpu-l4": 2}


def test_gpu_memory_of_a_whole_card_is_a_whole_card():
    placement = plan_placement([demand(GpuRequest(type="L4", gpu_memory=24 * 10**9))], CLUSTER)
    assert placement.requests["training"].count == 1


def test_workers_keep_to_the_larger_of_two_cards_of_one_name_by_its_label():
    large = replace(
        A100, name="large", accelerator_memory_bytes=80 * GIB, labels={GPU_MEMORY_LABEL: "80GiB"}
    )
    wanted = demand(GpuRequest(type="A100", gpu_memory=60 * GIB))
    placement = plan_placement([wanted], Cluster((A100, large)))
    assert placement.assignments == {"training": {"large": 1}}
    assert placement.requests["training"].labels == {GPU_MEMORY_LABEL: "in(80GiB)"}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (CpuRequest(labels={"zone": "a"}), "here"),
        (CpuRequest(labels={"zone": "!a"}), "there"),
        (CpuRequest(labels={"zone": "in(b, c)"}, spot=True), "spot"),
        (CpuRequest(disk=100), "there"),
        (CpuRequest(custom_resources={"FPGA": 0.5}), "here"),
        (CpuRequest(cpus=16, spot=True), "spot"),
    ],
)
def test_labels_disks_custom_resources_and_spot_choose_the_node(request_, expected):
    kinds = (
        NodeType("here", 8, labels={"zone": "a"}, custom_resources={"FPGA": 1}),
        NodeType("there", 8, disk_bytes=100),
        NodeType("spot", 16, labels={"zone": "b"}, spot=True, price_per_hour=0.1),
    )
    placement = plan_placement([demand(request_)], Cluster(kinds))
    assert placement.assignments == {"training": {expected: 1}}


@pytest.mark.parametrize(
    ("placement", "nodes"),
    [("pack", 1), ("spread", 1), ("strict_pack", 1), ("strict_spread", 2)],
)
def test_strict_spread_gives_each_worker_a_node(placement, nodes):
    wanted = replace(demand(CpuRequest(cpus=2), 2), placement=placement)
    assert sum(plan_placement([wanted], CLUSTER).num_nodes.values()) == nodes


def test_strict_pack_takes_the_node_that_holds_all():
    wanted = replace(demand(CpuRequest(cpus=4), 6, most=20), placement="strict_pack")
    placement = plan_placement([wanted], Cluster((CPU, A100), max_workers=4))
    assert placement.assignments == {"training": {"gpu-a100": 6}}


def test_nodes_that_hold_the_same_are_listed_together():
    demands = [
        demand(GpuRequest(type="L4"), 3, name="training"),
        demand(CpuRequest(cpus=7), 1, name="serving"),
    ]
    placement = plan_placement(demands, Cluster((replace(L4, min_count=1),)))
    assert placement.nodes == (
        NodeGroup("gpu-l4", number=2, num_added=2, workers={"training": 1}),
        NodeGroup("gpu-l4", number=1, num_added=0, workers={"training": 1, "serving": 1}),
    )


def test_nodes_that_are_up_are_used_before_any_is_added():
    up = NodeType("up", 4, min_count=2, max_count=2)
    placement = plan_placement([demand(CpuRequest(cpus=4), 3)], Cluster((CPU, up)))
    assert placement.num_nodes == {"up": 2, "cpu": 1}
    assert placement.num_added == {"cpu": 1}


def test_the_cheaper_of_equal_nodes_is_added():
    kinds = tuple(NodeType(name, 8, price_per_hour=price) for name, price in PRICES.items())
    placement = plan_placement([demand(CpuRequest(cpus=8), 1)], Cluster(kinds))
    assert placement.num_added == {"cheap": 1}


PRICES = {"unknown": None, "dear": 2.0, "cheap": 1.0}


def test_a_cluster_that_can_grow_refuses_nothing_that_more_nodes_can_mend():
    live = replace(CLUSTER, can_grow=True)
    demands = [
        demand(GpuRequest(type=["H100", "A100"], count=8), 2, name="training"),
        demand(CpuRequest(), 2, name="serving"),
    ]
    placement = plan_placement(demands, live)
    assert placement.assignments == {"training": {}, "serving": {"cpu": 2}}
    assert placement.requests["training"] == GpuRequest(type="A100", count=8)
    assert list(placement.beyond) == ["training"]
    assert "the node type that comes nearest, gpu-a100, has 2" in placement.beyond["training"]


def test_gpu_memory_of_a_known_type_needs_no_node_to_be_seen():
    live = Cluster((HEAD,), can_grow=True)
    wanted = demand(GpuRequest(type="L4", gpu_memory=6 * 10**9))
    placement = plan_placement([wanted], live)
    assert placement.requests["training"] == GpuRequest(type="L4", count=0.25)


@pytest.mark.parametrize(
    "wanted",
    [
        demand(GpuRequest(gpu_memory=GIB)),
        replace(demand(TpuRequest(type="v6e", topology="4x4"), 4), placement="strict_pack"),
    ],
)
def test_what_no_node_can_mend_is_refused_on_every_cluster(wanted):
    with pytest.raises(PlacementError):
        plan_placement([wanted], Cluster((HEAD,), can_grow=True))


@pytest.mark.parametrize(
    ("sizes", "cpus", "memory", "nodes", "fits"),
    [
        # (CPUs, memory, workers); what the relaxation and its rounding leave open.
        ([(5, 1, 5), (10, 1, 1), (4, 1, 5), (6, 1, 3)], 25, 60, 3, True),
        ([(13, 15, 5), (3, 20, 5), (20, 8, 12), (8, 6, 3)], 60, 60, 6, False),
    ],
)
def test_what_sums_and_fractions_leave_open_is_decided(sizes, cpus, memory, nodes, fits):
    demands = [
        demand(CpuRequest(cpus=size, memory=share), number, name=f"d{index}")
        for index, (size, share, number) in enumerate(sizes)
    ]
    kind = NodeType("node", cpus, memory_bytes=memory, max_count=nodes)
    if fits:
        assert plan_placement(demands, Cluster((kind,))).num_nodes == {"node": nodes}
    else:
        with pytest.raises(PlacementError):
            plan_placement(demands, Cluster((kind,)))


def test_nodes_whose_memory_differs_by_less_than_a_worker_are_alike():
    kinds = tuple(
        NodeType(f"node-{number}", 16, 60 * GIB + number, min_count=1) for number in range(1000)
    )
    demands = [
        demand(CpuRequest(cpus=5, memory=20 * GIB), 2000, name="training"),
        demand(CpuRequest(cpus=3, memory=10 * GIB), 1000, name="serving"),
    ]
    placement = plan_placement(demands, Cluster(kinds))
    assert placement.num_workers("training") == 2000
    assert not placement.num_added
