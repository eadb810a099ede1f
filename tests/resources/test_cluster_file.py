from pathlib import Path

import pytest

from kovar.errors import SpecError
from kovar.resources import NodeType, read_cluster

GOOD = """\
cluster_name: demo
max_workers: 6
provider: {type: gcp}
head_node_type: head
available_node_types:
  head:
    resources: {CPU: 0}
    node_config: {machineType: n2-standard-4}
  gpu:
    min_workers: 1
    max_workers: 2
    resources:
      CPU: 12
      GPU: 2
      "accelerator_type:A100": 1
      "accelerator_type:A100-40G": 1
      memory: 1073741824
    labels: {kovar.dev/spot: "true"}
    node_config: {machineType: a2-highgpu-2g}
  tpu:
    resources:
      CPU: 112
      TPU: 8
      "accelerator_type:TPU-V5LITEPOD": 1
    node_config: {acceleratorType: v5litepod-8, runtimeVersion: v2-alpha-tpuv5-lite}
"""


def read(tmp_path: Path, text: str) -> tuple[NodeType, ...]:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return read_cluster(path).node_types


def test_a_cluster_file_becomes_node_types(tmp_path):
    head, gpu, tpu = read(tmp_path, GOOD)
    assert head == NodeType("head", 0, min_count=1, max_count=1, is_head=True, labels={})
    assert gpu == NodeType(
        "gpu",
        12,
        memory_bytes=1 << 30,
        gpu_types=("A100", "A100-40G"),
        num_gpus=2,
        accelerator_memory_bytes=40 * 10**9,
        min_count=1,
        max_count=2,
        interconnect="NVLink, 600 GB/s",
        spot=True,
        labels={"kovar.dev/spot": "true"},
    )
    assert (tpu.tpu_type, tpu.tpu_topology, tpu.num_tpu_chips) == ("v5e", "2x4", 8)
    assert (tpu.min_count, tpu.max_count, tpu.num_hosts) == (0, 6, 1)


def test_a_node_type_may_name_its_slice_by_topology(tmp_path):
    written = "acceleratorConfig: {type: V5LITE_POD, topology: 2x4}"
    tpu = read(tmp_path, GOOD.replace("acceleratorType: v5litepod-8", written))[2]
    assert (tpu.tpu_type, tpu.tpu_topology) == ("v5e", "2x4")


def test_a_large_slice_is_one_node_of_several_hosts(tmp_path):
    text = GOOD.replace("v5litepod-8", "v5litepod-16").replace("TPU: 8", "TPU: 4")
    assert read(tmp_path, text)[2].num_hosts == 4


@pytest.mark.parametrize(
    ("old", "new", "where", "message"),
    [
        ("head_node_type: head", "head_node_type: haed", "4: head_node_type", '"head"'),
        ("head_node_type: head\n", "", "1: head_node_type", "required"),
        ("head_node_type: head", "head_node_type: [head]", "4: head_node_type", "not one of"),
        ("max_workers: 6\n", "", "1: max_workers", "required"),
        ("max_workers: 6", "max_workers: many", "2: max_workers", "whole number"),
        ("    resources: {CPU: 0}\n", "", "6: available_node_types.head.resources", "required"),
        ("{CPU: 0}", "[CPU]", "7: available_node_types.head.resources", "mapping"),
        ("{CPU: 0}", "{GPU: 0}", "7: available_node_types.head.resources", "CPU is missing"),
        ("GPU: 2", "GPU: 0.5", "14: available_node_types.gpu.resources.GPU", "whole number"),
        ("GPU: 2", "GPU: -1", "14: available_node_types.gpu.resources.GPU", "0 or more"),
        ("min_workers: 1", "min_workers: 3", "10: available_node_types.gpu.min_workers", "most 2"),
        ("TPU: 8", "TPU: 4", "23: available_node_types.tpu.resources.TPU", "TPU: 8"),
        ("TPU-V5LITEPOD", "TPU-V5E", "21: available_node_types.tpu.resources", "TPU-V5LITEPOD"),
        ("v5litepod-8", "v9-8", "25: available_node_types.tpu.node_config", "v5litepod-8"),
        (
            "acceleratorType: v5litepod-8",
            "machineType: ct5lp",
            "23: available_node_types.tpu.resources.TPU",
            "acceleratorConfig",
        ),
        ("GPU: 2", "FPGA: .inf", "14: available_node_types.gpu.resources.FPGA", "no further"),
        ("GPU: 2", "FPGA: .nan", "14: available_node_types.gpu.resources.FPGA", "no further"),
        ("CPU: 112", f"CPU: {10**400}", "22: available_node_types.tpu.resources.CPU", "at most"),
        ("{machineType: a2-highgpu-2g}", "a2", "19: available_node_types.gpu.node", "mapping"),
    ],
)
def test_a_mistake_is_reported_at_its_line(tmp_path, old, new, where, message):
    assert GOOD.count(old) == 1
    with pytest.raises(SpecError) as caught:
        read(tmp_path, GOOD.replace(old, new))
    assert f"cluster.yaml:{where}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["- a list", "available_node_types: {}\nhead_node_type: x"])
def test_a_file_without_node_types_is_refused(tmp_path, text):
    with pytest.raises(SpecError, match=r"cluster\.yaml:1"):
        read(tmp_path, text)


def test_a_cluster_has_a_limit_an_idle_time_and_a_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD + "idle_timeout_minutes: 2\n")
    cluster = read_cluster(path)
    assert (cluster.max_workers, cluster.idle_timeout_s, cluster.origin) == (6, 120, "mine.yaml")
    assert not cluster.can_grow


def test_labels_of_kovar_tell_price_spot_memory_disk_and_interconnect(tmp_path):
    told = (
        'kovar.dev/price-per-hour: "3.67", kovar.dev/gpu-memory: 40GiB, '
        "kovar.dev/disk: 200GB, kovar.dev/interconnect: NVLink, "
    )
    gpu = read(tmp_path, GOOD.replace("    labels: {", "    labels: {" + told))[1]
    assert (gpu.price_per_hour, gpu.spot) == (3.67, True)
    assert (gpu.accelerator_memory_bytes, gpu.disk_bytes) == (40 << 30, 200 * 10**9)
    assert gpu.interconnect == "NVLink"


@pytest.mark.parametrize(
    ("config", "disk", "spot"),
    [
        ("disks: [{initializeParams: {diskSizeGb: 200}}]", 200 << 30, False),
        ("BlockDeviceMappings: [{Ebs: {VolumeSize: 100}}]", 100 << 30, False),
        ("scheduling: {provisioningModel: SPOT}", None, True),
        ("scheduling: [{preemptible: true}]", None, True),
        ("InstanceMarketOptions: {MarketType: spot}", None, True),
    ],
)
def test_the_clouds_settings_tell_disks_and_spot(tmp_path, config, disk, spot):
    text = GOOD.replace('kovar.dev/spot: "true"', "team: a")
    gpu = read(tmp_path, text.replace("CPU: 12\n", "CPU: 12\n      FPGA: 2\n"))[1]
    assert gpu.custom_resources == {"FPGA": 2}
    gpu = read(tmp_path, text.replace("{machineType: a2-highgpu-2g}", f"{{{config}}}"))[1]
    assert (gpu.disk_bytes, gpu.spot) == (disk, spot)
