import copy
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from kovar.errors import UserError
from kovar.resources import Cluster, NodeType, read_cluster
from kovar.resources.tpu_slice import RAY_TPU_TYPES, TOPOLOGIES, TPU_TYPES
from kovar.simulation.autoscaling import (
    autoscaling_config,
    host_labels,
    host_resources,
    tpu_environment,
)

ROOT = Path(__file__).parents[2]
HEAD = NodeType("head", 0, min_count=1, max_count=1, is_head=True)
GPU = NodeType("gpu", 8, num_gpus=2, gpu_types=("A100", "A100-40G"), memory_bytes=1 << 30)
SLICE = NodeType("tpu", 8, tpu_type="v5e", tpu_topology="4x4", num_tpu_chips=4, max_count=2)


def config_of(cluster: Cluster) -> dict:
    return autoscaling_config(cluster, gcs_address="here:1", folder="nodes", idle_timeout_s=30)


@pytest.mark.parametrize(
    "file", ["cluster.yaml", "clusters/local.yaml", "clusters/kuberay/raycluster.yaml"]
)
def test_rays_autoscaler_accepts_what_the_shipped_files_become(file):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = config_of(read_cluster(ROOT / file))
    validate_config(prepare_config(copy.deepcopy(config)))
    assert config["available_node_types"][config["head_node_type"]]["resources"]["CPU"] == 0
    assert config["idle_timeout_minutes"] == 0.5


def test_a_gpu_host_has_its_types_and_custom_resources():
    kind = replace(GPU, cpus=7.5, custom_resources={"FPGA": 1})
    assert host_resources(kind) == {
        "CPU": 8, "memory": 1 << 30, "GPU": 2,
        "accelerator_type:A100": 1, "accelerator_type:A100-40G": 1, "FPGA": 1,
    }  # fmt: skip


def test_ray_counts_hosts_where_the_declaration_counts_slices():
    types = config_of(Cluster((HEAD, SLICE, GPU), max_workers=2))
    assert types["available_node_types"]["tpu"]["max_workers"] == 8
    assert types["max_workers"] == 8
    assert config_of(Cluster((HEAD, GPU), max_workers=None))["max_workers"] == 1


@pytest.mark.parametrize("generation", TPU_TYPES)
def test_a_slice_has_what_a_reservation_asks_for(generation):
    from ray._private.accelerators.tpu import infer_tpu_pod_type_from_topology

    shape = TOPOLOGIES[generation][-1]
    kind = replace(SLICE, tpu_type=generation, tpu_topology=shape)
    pod_type = infer_tpu_pod_type_from_topology(shape, RAY_TPU_TYPES[generation])
    assert host_resources(kind)[f"TPU-{pod_type}-head"] == 1
    assert host_labels(kind)["ray.io/tpu-pod-type"] == pod_type
    assert tpu_environment(kind) == {"TPU_ACCELERATOR_TYPE": pod_type, "TPU_TOPOLOGY": shape}


def test_the_autoscaler_knows_the_declared_labels_and_not_those_that_ray_detects():
    kind = replace(GPU, labels={"zone": "a", "ray.io/node-id": "x"})
    assert host_labels(kind) == {"zone": "a"}
    detected = config_of(Cluster((HEAD, kind)))["available_node_types"]["gpu"]["node_config"]
    assert detected["detected_labels"] == {"ray.io/accelerator-type": "A100"}


def test_a_cluster_without_a_head_is_refused():
    with pytest.raises(UserError, match="has no head node"):
        config_of(Cluster((GPU,), origin="a.yaml"))


def test_the_local_cluster_is_valid_against_the_schema_that_ships_inside_ray():
    import ray.autoscaler

    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    declared = yaml.safe_load((ROOT / "clusters" / "local.yaml").read_text())
    jsonschema.validate(declared, json.loads(schema.read_text()))
    kinds = read_cluster(ROOT / "clusters" / "local.yaml").node_types
    assert [kind.name for kind in kinds if kind.num_hosts == 2] == ["tpu-v4"]
