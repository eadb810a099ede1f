import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from kovar.errors import PlacementError
from kovar.resources import (
    CpuRequest,
    Demand,
    GpuRequest,
    Resources,
    TpuRequest,
    plan_placement,
    read_cluster,
)

ROOT = Path(__file__).parents[1]
PATH = ROOT / "cluster.yaml"
AWS = ROOT / "clusters" / "aws.yaml"


def starts_with_ray_up(path):
    return yaml.safe_load(path.read_text()).get("provider", {}).get("type") in ("aws", "gcp")


FILES = [PATH, *filter(starts_with_ray_up, sorted((ROOT / "clusters").glob("*.yaml")))]


@pytest.fixture(scope="module")
def cluster():
    return yaml.safe_load(PATH.read_text())


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def path(request):
    return request.param


@pytest.fixture
def any_cluster(path):
    return yaml.safe_load(path.read_text())


def test_both_clouds_are_here():
    assert {PATH, AWS} <= set(FILES)


def test_it_is_valid_against_the_schema_that_ships_inside_ray(any_cluster):
    import ray.autoscaler

    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    jsonschema.validate(any_cluster, json.loads(schema.read_text()))


def test_ray_prepares_and_validates_it_as_ray_up_does(any_cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(any_cluster))
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0
    assert prepared["head_setup_commands"][:-1] == any_cluster["setup_commands"]


def test_ray_accepts_its_labels_and_tpu_types(any_cluster):
    from ray._private.accelerators import TPUAcceleratorManager
    from ray._private.label_utils import validate_node_label_syntax

    for node_type in any_cluster["available_node_types"].values():
        validate_node_label_syntax(node_type["labels"])
        assert set(node_type["labels"]) == {"kovar.dev/price-per-hour", "kovar.dev/spot"}
        assert float(node_type["labels"]["kovar.dev/price-per-hour"]) > 0
        accelerator = node_type["node_config"].get("acceleratorType")
        if accelerator:
            assert TPUAcceleratorManager.is_valid_tpu_accelerator_type(accelerator)


def test_tpu_nodes_are_declared_as_google_wants_them(cluster):
    for name, node_type in cluster["available_node_types"].items():
        config = node_type["node_config"]
        is_tpu = name.startswith("tpu-")
        assert ("machineType" in config) is not is_tpu
        assert ("acceleratorType" in config) is is_tpu
        assert ("runtimeVersion" in config) is is_tpu
        assert not any(resource.endswith("-head") for resource in node_type["resources"])


def test_every_declared_node_type_is_read(cluster):
    types = {kind.name: kind for kind in read_cluster(PATH).node_types}
    assert list(types) == list(cluster["available_node_types"])
    assert types["head"].is_head
    assert types["head"].cpus == 0
    assert {name: kind.accelerator for name, kind in types.items()} == {
        "head": None,
        "cpu": None,
        "gpu-l4": "L4:1",
        "gpu-a100": "A100:1",
        "gpu-h100": "H100:8",
        "tpu-v5e": "v5e 2x4",
        "tpu-v6e": "v6e 2x4",
    }
    assert all(kind.num_hosts == 1 for kind in types.values())
    assert all(kind.memory_bytes for kind in types.values() if not kind.is_head)


@pytest.mark.parametrize(
    ("worker", "number", "where"),
    [
        (CpuRequest(cpus=2, memory=4 << 30), 8, "cpu"),
        (GpuRequest(type="L4"), 4, "gpu-l4"),
        (GpuRequest(type="A100-40G"), 2, "gpu-a100"),
        (GpuRequest(type="H100"), 8, "gpu-h100"),
        (TpuRequest(type="v5e", topology="2x4"), 1, "tpu-v5e"),
    ],
)
def test_each_kind_of_work_has_its_place(worker, number, where):
    demand = Demand.of(Resources(worker=worker, num_workers=number), name="job")
    placement = plan_placement([demand], read_cluster(PATH))
    assert placement.assignments == {"job": {where: number}}


def test_a_type_that_the_zone_lacks_is_refused_with_what_would_help():
    worker = TpuRequest(type="v6e", topology="2x4")
    with pytest.raises(PlacementError) as caught:
        plan_placement([Demand.of(Resources(worker=worker), name="job")], read_cluster(PATH))
    assert "raise tpu-v6e.max_workers from 0 to 1" in caught.value.hint
    assert "type: v5e with topology: 2x4" in caught.value.hint


def test_disks_are_in_the_zone_of_the_cluster(cluster):
    zones = set(re.findall(r"diskType: zones/([a-z0-9-]+)/", PATH.read_text()))
    assert zones == {cluster["provider"]["availability_zone"]}


def test_nothing_listens_to_the_world_and_requests_need_the_token(any_cluster, path):
    commands = " ".join(
        any_cluster["head_start_ray_commands"] + any_cluster["worker_start_ray_commands"]
    )
    assert "--dashboard-host=127.0.0.1" in commands
    assert "0.0.0.0" not in path.read_text()
    assert any_cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "RAY_AUTH_MODE=token" in " ".join(any_cluster["initialization_commands"])


def test_nodes_install_kovar_with_the_pinned_ray(any_cluster):
    setup = " ".join(any_cluster["setup_commands"])
    assert "~/kovar/constraints.txt" in setup
    assert setup.endswith(" ~/kovar")
    pinned = re.search(r"ray\[[a-z,]+\]==([0-9.]+)", setup)
    assert f"\nray=={pinned[1]}\n" in (ROOT / "constraints.txt").read_text()


def test_all_that_is_copied_to_the_nodes_is_in_the_repository(any_cluster):
    copied = {path for path in any_cluster["file_mounts"].values() if not path.startswith("~")}
    assert {"platform", "pyproject.toml", "constraints.txt"} <= copied
    assert all((ROOT / path).exists() for path in copied)


def test_the_limit_of_the_whole_cluster_is_one_that_types_can_reach(any_cluster):
    types = any_cluster["available_node_types"]
    assert any_cluster["max_workers"] <= sum(kind.get("max_workers", 0) for kind in types.values())
    assert all(kind["min_workers"] == 0 for name, kind in types.items() if name != "head")


def test_every_node_mounts_the_folder_that_runs_are_kept_in(any_cluster):
    starts = any_cluster["head_start_ray_commands"] + any_cluster["worker_start_ray_commands"]
    homes = {home for command in starts for home in re.findall(r"KOVAR_HOME=(\S+)", command)}
    (home,) = homes
    assert any(f"mountpoint -q {home}" in line for line in any_cluster["setup_commands"])


def test_each_kind_of_node_on_aws_is_read():
    found = {kind.name: kind for kind in read_cluster(AWS).node_types}
    assert {name: kind.accelerator for name, kind in found.items() if kind.accelerator} == {
        "gpu-l4": "L4:1",
        "gpu-a100": "A100:8",
        "gpu-h100": "H100:8",
    }
    assert found["trainium"].custom_resources == {"neuron_cores": 2}
    assert all(kind.price_per_hour for kind in found.values())


def test_work_of_ones_own_finds_the_trainium_cores():
    worker = CpuRequest(custom_resources={"neuron_cores": 2})
    demand = Demand.of(Resources(worker=worker), name="job")
    assert plan_placement([demand], read_cluster(AWS)).assignments == {"job": {"trainium": 1}}
