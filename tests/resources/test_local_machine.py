import math
import os

import pytest

from kovar.resources import local_cluster
from kovar.resources.local_machine import _accelerator_type

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path):
    """A folder that stands for / of a machine with 16 GiB of free memory."""
    write(tmp_path, "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable: {16 * GIB // 1024} kB\n")
    return tmp_path


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_this_machine_is_a_head_that_runs_work():
    (node,) = local_cluster().node_types
    assert (node.name, node.is_head, node.min_count, node.max_count) == ("local", True, 1, 1)
    assert 1 <= node.cpus <= len(os.sched_getaffinity(0))
    assert node.memory_bytes > 0


def test_without_limits_all_processors_and_most_of_the_memory_count(machine):
    (node,) = local_cluster(root=machine).node_types
    assert node.cpus == len(os.sched_getaffinity(0))
    assert node.memory_bytes == int(16 * GIB * 0.7)
    assert (node.num_gpus, node.gpu_types) == (0, ())


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "150000 100000", "memory.max": f"{4 * GIB}", "memory.current": f"{GIB}"},
        {
            "cpu/cpu.cfs_quota_us": "150000",
            "cpu/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": f"{4 * GIB}",
            "memory/memory.usage_in_bytes": f"{GIB}",
        },
    ],
    ids=["version 2", "version 1"],
)
def test_limits_of_control_groups_are_respected(machine, files):
    for name, text in files.items():
        write(machine, f"sys/fs/cgroup/{name}", text)
    (node,) = local_cluster(root=machine).node_types
    assert node.cpus == 1
    assert node.memory_bytes == int(3 * GIB * 0.7)


@pytest.mark.parametrize(
    ("folder", "limit", "usage", "prefix"),
    [
        ("", "memory.max", "memory.current", ""),
        ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
    ids=["version 2", "version 1"],
)
def test_files_that_a_control_group_caches_count_as_free(machine, folder, limit, usage, prefix):
    group = f"sys/fs/cgroup/{folder}"
    write(machine, f"{group}{limit}", f"{4 * GIB}")
    write(machine, f"{group}{usage}", f"{4 * GIB}")
    stat = f"anon {2 * GIB}\n{prefix}inactive_file {GIB}\n{prefix}active_file {GIB}\n"
    write(machine, f"{group}memory.stat", stat)
    assert local_cluster(root=machine).node_types[0].memory_bytes == int(2 * GIB * 0.7)


def test_unlimited_control_groups_change_nothing(machine):
    write(machine, "sys/fs/cgroup/cpu.max", "max 100000")
    write(machine, "sys/fs/cgroup/memory.max", "max")
    write(machine, "sys/fs/cgroup/memory.current", "1")
    assert local_cluster(root=machine).node_types[0].memory_bytes == int(16 * GIB * 0.7)


def test_nvidia_cards_are_found_without_their_libraries(machine, monkeypatch):
    for slot in ("0000:00:04.0", "0000:00:05.0"):
        path = f"proc/driver/nvidia/gpus/{slot}/information"
        write(machine, path, "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ: 1\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (node,) = local_cluster(root=machine).node_types
    assert (node.num_gpus, node.gpu_types) == (2, ("A100",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert local_cluster(root=machine).node_types[0].num_gpus == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_cluster(root=machine).node_types[0].num_gpus == 0


@pytest.mark.parametrize(
    "model",
    [
        "NVIDIA A100-SXM4-40GB",
        "NVIDIA H100 80GB HBM3",
        "Tesla V100-SXM2-16GB",
        "Tesla T4",
        "NVIDIA L4",
        "NVIDIA RTX PRO 6000 Blackwell",
        "NVIDIA GeForce RTX 5090",
    ],
)
def test_cards_are_named_as_ray_names_them(model):
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager

    assert _accelerator_type(model) == NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(
        model
    )


def test_the_number_of_processors_agrees_with_ray():
    from ray._private.utils import get_num_cpus

    assert local_cluster().node_types[0].cpus == max(
        1, min(math.floor(get_num_cpus()), len(os.sched_getaffinity(0)))
    )
