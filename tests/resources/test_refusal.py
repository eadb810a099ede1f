from dataclasses import replace

import pytest

from kovar.errors import PlacementError
from kovar.resources import (
    Cluster,
    CpuRequest,
    Demand,
    GpuRequest,
    NodeType,
    TpuRequest,
    plan_placement,
)

GIB = 1 << 30
HEAD = NodeType("head", 0, min_count=1, max_count=1, is_head=True)
CPU = NodeType("cpu", 8, memory_bytes=20 * GIB, max_count=2)
L4 = NodeType("gpu-l4", 8, gpu_types=("L4",), num_gpus=1, max_count=4)
A100 = NodeType("gpu-a100", 24, gpu_types=("A100",), num_gpus=2)
TPU = NodeType("tpu", 100, tpu_type="v5e", tpu_topology="2x4", num_tpu_chips=8)
CLUSTER = (HEAD, CPU, L4, A100, TPU)
LAPTOP = (NodeType("local", 2, memory_bytes=4 * GIB, min_count=1, max_count=1, is_head=True),)


def refuse(request, number, node_types, placement="pack"):
    demand = Demand(
        "t", "resources.worker", request, number, number, "resources.num_workers", placement
    )
    with pytest.raises(PlacementError) as caught:
        plan_placement([demand], Cluster(tuple(node_types), max_workers=4))
    return caught.value


@pytest.mark.parametrize(
    ("request_", "number", "field", "hint"),
    [
        (GpuRequest(type="H100"), 1, "worker.type", "use type: L4, or use type: A100"),
        (
            GpuRequest(type="A100", count=4),
            1,
            "worker.count",
            "use 2 workers × 2 (num_workers: 2, count: 2) and raise gpu-a100.max_workers from 1 "
            "to 2",
        ),
        (GpuRequest(type="A100", cpus=30), 2, "worker.cpus", "use cpus: 24"),
        (
            GpuRequest(type="A100"),
            3,
            "num_workers",
            "use num_workers: 2, or raise gpu-a100.max_workers from 1 to 2",
        ),
        (
            GpuRequest(type="L4"),
            6,
            "num_workers",
            "raise gpu-l4.max_workers from 4 to 6 and raise the cluster's max_workers from 4 to 6",
        ),
        (CpuRequest(memory=64 * GIB), 1, "worker.memory", "use memory: 20480MiB"),
        (GpuRequest(type="L4", memory=GIB), 1, "worker.memory", "leave out memory"),
        (TpuRequest(type="v5e", topology="2x2"), 2, "worker.topology", "topology: 2x4"),
        (
            TpuRequest(type="v6e", topology="4x4"),
            4,
            "worker.type",
            "type: v5e with topology: 2x4 and num_workers: 1",
        ),
        (TpuRequest(type="v5e", topology="2x4"), 2, "num_workers", "tpu.max_workers from 1 to 2"),
    ],
)
def test_a_refusal_names_the_field_and_the_nearest_change(request_, number, field, hint):
    error = refuse(request_, number, CLUSTER)
    assert error.field == f"resources.{field}"
    assert hint in error.hint


@pytest.mark.parametrize(
    ("request_", "number", "field", "hint"),
    [
        (CpuRequest(), 3, "num_workers", "use num_workers: 2"),
        (CpuRequest(cpus=4), 1, "worker.cpus", "use cpus: 2"),
        (CpuRequest(memory=8 * GIB), 1, "worker.memory", "use memory: 4096MiB"),
        (GpuRequest(), 1, "worker.kind", "use kind: cpu"),
        (TpuRequest(type="v5e", topology="2x4"), 1, "worker.type", "use kind: cpu"),
    ],
)
def test_on_one_machine_no_more_nodes_are_offered(request_, number, field, hint):
    error = refuse(request_, number, LAPTOP)
    assert error.field == f"resources.{field}"
    assert error.hint == hint


STAYS = NodeType(
    "stays", 8, memory_bytes=20 * GIB, labels={"zone": "a"}, custom_resources={"FPGA": 1.0}
)
GOES = NodeType("goes", 16, spot=True, labels={"zone": "c"})
CARDS = NodeType(
    "cards",
    8,
    gpu_types=("L4",),
    num_gpus=1,
    accelerator_memory_bytes=24 * GIB,
    disk_bytes=100 * GIB,
)


@pytest.mark.parametrize(
    ("request_", "field", "allowed", "hint"),
    [
        (
            CpuRequest(labels={"zone": "b"}),
            "labels.zone",
            "zone: a, zone: c",
            "use labels.zone: a, or leave out labels.zone, "
            "or use labels.zone: c and use spot: true",
        ),
        (CpuRequest(labels={"team": "x"}), "labels.team", "no label team", "leave out labels.team"),
        (CpuRequest(cpus=12), "spot", "Spot nodes", "use spot: true, or use cpus: 8"),
        (
            CpuRequest(custom_resources={"FPGA": 2.0}),
            "custom_resources.FPGA",
            "FPGA: 1",
            "use custom_resources.FPGA: 1, or leave out custom_resources.FPGA",
        ),
        (
            GpuRequest(disk=200 * GIB),
            "disk",
            "at most 100.0 GiB",
            "use disk: 102400MiB",
        ),
        (
            GpuRequest(gpu_memory=30 * GIB),
            "gpu_memory",
            "at most 24.0 GiB",
            "use gpu_memory: 24576MiB",
        ),
    ],
)
def test_a_constraint_is_refused_at_its_own_field(request_, field, allowed, hint):
    error = refuse(request_, 1, (STAYS, GOES, CARDS))
    assert error.field == f"resources.worker.{field}"
    assert error.context["allowed"] == allowed
    assert error.hint == hint


@pytest.mark.parametrize(
    ("request_", "hint"),
    [
        (
            CpuRequest(disk=GIB),
            "declare the label kovar.dev/disk on stays, if it has so much, or leave out disk",
        ),
        (
            GpuRequest(gpu_memory=GIB, type="FPU9000"),
            "declare the label kovar.dev/gpu-memory on odd, if it has so much",
        ),
    ],
)
def test_what_is_not_declared_may_well_be_there(request_, hint):
    odd = NodeType("odd", 8, gpu_types=("FPU9000",), num_gpus=1)
    assert refuse(request_, 1, (STAYS, odd)).hint.startswith(hint)


@pytest.mark.parametrize(
    ("placement", "request_", "number", "hint"),
    [
        ("strict_pack", CpuRequest(cpus=5), 2, "use placement: pack, or use num_workers: 1"),
        (
            "strict_spread",
            CpuRequest(),
            3,
            "use placement: spread, or use num_workers: 2, or raise cpu.max_workers from 2 to 3",
        ),
    ],
)
def test_strict_placement_is_blamed_when_it_is_what_fails(placement, request_, number, hint):
    error = refuse(request_, number, (HEAD, CPU), placement=placement)
    assert error.field == "resources.placement"
    assert error.hint == hint


def test_a_list_of_types_is_refused_as_a_whole():
    error = refuse(GpuRequest(type=["A100", "L4"]), 9, CLUSTER)
    assert "9 × A100:1 or L4:1 does not fit" in str(error)
    assert error.hint.startswith("use num_workers: 4, or raise gpu-a100.max_workers from 1 to 5")


def test_a_limit_is_called_what_the_declaration_calls_it():
    demand = Demand("t", "resources.worker", GpuRequest(type="A100"), 9, 9)
    with pytest.raises(PlacementError) as caught:
        plan_placement([demand], Cluster(CLUSTER, limit_name="maxReplicas"))
    assert "raise gpu-a100.maxReplicas from" in caught.value.hint


def test_trials_are_not_multiplied_to_keep_their_gpus():
    demand = Demand("sweep", "resources.worker", GpuRequest(type="A100", count=4), 1, 8)
    with pytest.raises(PlacementError) as caught:
        plan_placement([demand], Cluster(CLUSTER))
    assert caught.value.hint == "use count: 2"


def test_the_culprit_is_the_first_that_does_not_fit_beside_those_before_it():
    demands = [
        Demand("training", "resources.worker", GpuRequest(type="A100"), 1, 1),
        Demand("serving", "replica", GpuRequest(type="A100", count=2), 1, 1, "num_replicas"),
    ]
    with pytest.raises(PlacementError, match="does not fit beside training") as caught:
        plan_placement(demands, Cluster(CLUSTER))
    assert caught.value.hint == "raise gpu-a100.max_workers from 1 to 2"


def test_a_node_type_that_is_switched_off_can_be_switched_on():
    off = replace(L4, max_count=0)
    error = refuse(GpuRequest(), 1, (HEAD, off))
    assert error.hint == "raise gpu-l4.max_workers from 0 to 1"
    assert "at most 0" in str(error)


def test_when_no_single_change_helps_the_hint_says_what_to_declare():
    error = refuse(GpuRequest(count=2), 1, (HEAD, replace(CPU, max_count=0), TPU))
    assert error.hint == "declare a node type with a GPU"


def test_the_message_says_what_was_asked_and_what_is_there():
    text = str(refuse(GpuRequest(type="A100", count=4), 1, CLUSTER))
    assert text.splitlines()[:3] == [
        "resources.worker.count: A100:4 per worker; "
        "the node type that comes nearest, gpu-a100, has 2",
        "  got: A100:4",
        "  allowed: at most 2",
    ]
