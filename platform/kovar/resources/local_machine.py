"""This machine, described as a node type without starting Ray."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Final

from kovar.resources.cluster import THIS_MACHINE, Cluster
from kovar.resources.node_type import NodeType

USABLE_MEMORY_SHARE: Final = 0.7
"""Ray keeps 30 % of a machine's free memory for its object store."""


def local_cluster(*, root: Path = Path("/")) -> Cluster:
    """Describe this machine as the one node of a cluster, as Ray would find it; without Ray.

    Args:
        root: where /proc and /sys are; another folder in tests.
    """
    cpus = min(len(os.sched_getaffinity(0)), _cgroup_cpus(root))
    gpus = _local_gpus(root)
    return Cluster(
        (
            NodeType(
                name="local",
                cpus=max(1, math.floor(cpus)),
                memory_bytes=int(_free_memory(root) * USABLE_MEMORY_SHARE),
                gpu_types=tuple(dict.fromkeys(gpu for gpu in gpus if gpu)),
                num_gpus=len(gpus),
                min_count=1,
                max_count=1,
                is_head=True,
            ),
        ),
        origin=THIS_MACHINE,
    )


def _cgroup_cpus(root: Path) -> float:
    """Read the CPU quota of control groups, version 2 then 1; infinite when there is none."""
    quota = _read_words(root / "sys/fs/cgroup/cpu.max")
    if not quota:
        folder = root / "sys/fs/cgroup/cpu"
        quota = _read_words(folder / "cpu.cfs_quota_us") + _read_words(folder / "cpu.cfs_period_us")
    if len(quota) == 2 and quota[0] not in ("max", "-1"):
        return int(quota[0]) / int(quota[1])
    return math.inf


def _free_memory(root: Path) -> int:
    """Read the memory that is available, within the limit of control groups, in bytes."""
    text = (root / "proc/meminfo").read_text(encoding="ascii")
    kibibytes = re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.MULTILINE)
    free = int(kibibytes[1]) * 1024 if kibibytes else 0
    group = root / "sys/fs/cgroup"
    for limit_file, usage_file, stat_file, prefix in (
        (group / "memory.max", group / "memory.current", group / "memory.stat", ""),
        (
            group / "memory/memory.limit_in_bytes",
            group / "memory/memory.usage_in_bytes",
            group / "memory/memory.stat",
            "total_",
        ),
    ):
        limit, usage = _read_words(limit_file), _read_words(usage_file)
        if limit and usage and limit[0] != "max":
            used = int(usage[0]) - _cached(stat_file, prefix)
            free = min(free, max(0, int(limit[0]) - used))
    return free


def _cached(stat_file: Path, prefix: str) -> int:
    """Read how much of a control group's usage holds files: as in Ray, the kernel takes it back."""
    words = _read_words(stat_file)
    amounts = dict(zip(words[::2], words[1::2], strict=False))
    return sum(int(amounts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))


def _local_gpus(root: Path) -> list[str | None]:
    """List the accelerator type of each NVIDIA card, as its driver reports it under /proc."""
    gpus = []
    for card in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        model = re.search(r"^Model:\s*(.+?)\s*$", card.read_text(encoding="utf-8"), re.MULTILINE)
        gpus.append(_accelerator_type(model[1]) if model else None)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return gpus
    return gpus[: len([name for name in visible.split(",") if name.strip() not in ("", "-1")])]


def _accelerator_type(model: str) -> str | None:
    """Shorten a driver's model name as Ray does: "NVIDIA A100-SXM4-40GB" → "A100"."""
    match = re.match(r"\w+\s+((?:[A-Z]+\s+)*[A-Z0-9]*\d[A-Z0-9]*)", model)
    if match and len(match[1]) > 1:
        return match[1].replace(" ", "-")
    return re.sub(r"^NVIDIA\s+", "", model).replace(" ", "-") or None


def _read_words(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").split() if path.is_file() else []
