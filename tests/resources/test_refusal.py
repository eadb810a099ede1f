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


def refuse(request, number, node_types):
    demand = Demand("t", "resources.worker", request, number, number, "resources.num_workers")
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
            "use count: 2 with num_workers: 2 and raise gpu-a100.max_workers from 1 to 2",
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
        "resources.worker.count: one worker needs A100:4; "
        "the node type that comes nearest, gpu-a100, has 2",
        "  got: A100:4",
        "  allowed: at most 2",
    ]
