"""The cluster that a process is connected to, as node types."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kovar.resources import live_cluster, read_cluster
from kovar.resources.live_cluster import BOOTSTRAP_FILE, node_types_of

REPOSITORY = Path(__file__).parents[2]


def node(*, alive=True, labels=None, **resources):
    return {"Alive": alive, "Resources": resources, "Labels": labels or {}}


def test_equal_nodes_are_of_one_type_and_dead_ones_do_not_count():
    cpu = {"CPU": 8.0, "memory": 1e9}
    types = node_types_of([node(**cpu), node(**cpu), node(alive=False, CPU=64.0)])
    assert [(t.cpus, t.memory_bytes, t.min_count, t.max_count) for t in types] == [
        (8.0, 10**9, 2, 2)
    ]


def test_gpus_and_tpus_are_recognized_by_their_resources_and_labels():
    gpu = node(**{"CPU": 12.0, "GPU": 2.0, "accelerator_type:A100": 1.0})
    tpu = node(
        CPU=8.0,
        TPU=4.0,
        labels={"ray.io/accelerator-type": "TPU-V4", "ray.io/tpu-topology": "2x2x1"},
    )
    first, second = node_types_of([gpu, tpu])
    assert (first.gpu_types, first.num_gpus) == (("A100",), 2)
    assert (second.tpu_type, second.tpu_topology, second.num_tpu_chips) == ("v4", "2x2x1", 4)


@pytest.mark.ray
def test_a_head_of_ray_up_knows_the_nodes_that_the_autoscaler_can_add(ray_session, tmp_path):
    shutil.copy(REPOSITORY / "cluster.yaml", tmp_path / BOOTSTRAP_FILE)
    declared = read_cluster(REPOSITORY / "cluster.yaml")
    assert live_cluster(home=tmp_path) == replace(declared, origin="the live cluster")


@pytest.mark.ray
def test_elsewhere_the_nodes_that_are_up_are_all_there_is(ray_session, tmp_path):
    (only,) = live_cluster(home=tmp_path).node_types
    assert (only.cpus, only.max_count) == (4.0, 1)
