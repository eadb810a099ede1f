"""What the common machine types of AWS and Google Cloud have: CPUs, memory, accelerators.

Sizes follow from a rule within each family. Sources: AWS
https://docs.aws.amazon.com/ec2/latest/instancetypes/gp.html (m), …/co.html (c), …/mo.html (r) and
…/ac.html (g, p, trn, inf), Neuron cores from
https://awsdocs-neuron.readthedocs-hosted.com/en/latest/general/arch/index.html; Google Cloud
https://cloud.google.com/compute/docs/general-purpose-machines (n1, n2, n2d, e2, c3),
…/compute-optimized-machines (c2), …/accelerator-optimized-machines (g2, g4, a2, a3, a4) and
https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (hosts of TPUs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, Literal

from kovar.errors import did_you_mean
from kovar.resources.tpu_slice import TpuType

Cloud = Literal["aws", "gcp"]
_GIB: Final = 1 << 30


@dataclass(frozen=True)
class MachineType:
    """One machine type of a cloud.

    Args:
        name: as the cloud writes it, for example "g2-standard-8".
        cpus: virtual CPUs.
        memory_bytes: memory of the machine.
        resource: what Ray counts its accelerators as: GPU, TPU or neuron_cores; None without one.
        accelerator_types: Ray's names of them, the one that Ray detects first.
        num_accelerators: how many Ray counts.
        accepts_gpus: whether GPUs can be attached to it.
    """

    name: str
    cpus: int
    memory_bytes: int
    resource: Literal["GPU", "TPU", "neuron_cores"] | None = None
    accelerator_types: tuple[str, ...] = ()
    num_accelerators: int = 0
    accepts_gpus: bool = False


@dataclass(frozen=True)
class _Family:
    """Machine types whose size follows from their name."""

    gib_per_cpu: float
    sizes: str
    accelerator_types: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    """Accelerators per size, where it is not one."""


_TO_24 = "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge"
_TO_32 = f"{_TO_24} 32xlarge metal=128"
_TO_48 = f"{_TO_24} metal-24xl=96 48xlarge metal-48xl=192"
_TO_48_AMD = f"{_TO_24} 32xlarge 48xlarge metal=192"
_C5 = "large xlarge 2xlarge 4xlarge 9xlarge 12xlarge 18xlarge 24xlarge metal=96"
_G5 = "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge"
_G5_COUNTS = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
_NEURON = ("aws-neuron-core",)

_AWS: Final[Mapping[str, _Family]] = {
    "m5": _Family(4, f"{_TO_24} metal=96"),
    "m5a": _Family(4, _TO_24),
    "m6i": _Family(4, _TO_32),
    "m6a": _Family(4, _TO_48_AMD),
    "m7i": _Family(4, _TO_48),
    "m7a": _Family(4, f"medium {_TO_24} 32xlarge 48xlarge metal-48xl=192"),
    "c5": _Family(2, _C5),
    "c6i": _Family(2, _TO_32),
    "c6a": _Family(2, _TO_48_AMD),
    "c7i": _Family(2, _TO_48),
    "r5": _Family(8, f"{_TO_24} metal=96"),
    "r6i": _Family(8, _TO_32),
    "r7i": _Family(8, _TO_48),
    "g4dn": _Family(
        4,
        "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal=96",
        ("T4",),
        {"12xlarge": 4, "metal": 8},
    ),
    "g5": _Family(4, _G5, ("A10G",), _G5_COUNTS),
    "g6": _Family(4, _G5, ("L4",), _G5_COUNTS),
    "g6e": _Family(8, _G5, ("L40S",), _G5_COUNTS),
    "p3": _Family(7.625, "2xlarge 8xlarge 16xlarge", ("V100",), {"8xlarge": 4, "16xlarge": 8}),
    "p3dn": _Family(8, "24xlarge", ("V100",), {"24xlarge": 8}),
    "p4d": _Family(12, "24xlarge", ("A100", "A100-40G"), {"24xlarge": 8}),
    "p4de": _Family(12, "24xlarge", ("A100", "A100-80G"), {"24xlarge": 8}),
    "p5": _Family(32 / 3, "4xlarge=16 48xlarge", ("H100",), {"48xlarge": 8}),
    "p5e": _Family(32 / 3, "48xlarge", ("H200",), {"48xlarge": 8}),
    "p5en": _Family(32 / 3, "48xlarge", ("H200",), {"48xlarge": 8}),
    "p6-b200": _Family(32 / 3, "48xlarge", ("B200",), {"48xlarge": 8}),
    "p6-b300": _Family(64 / 3, "48xlarge", ("B300",), {"48xlarge": 8}),
    # Ray counts the cores of Neuron chips, two on each of these and eight on a Trainium2.
    "trn1": _Family(4, "2xlarge 32xlarge", _NEURON, {"2xlarge": 2, "32xlarge": 32}),
    "trn1n": _Family(4, "32xlarge", _NEURON, {"32xlarge": 32}),
    "trn2": _Family(32 / 3, "3xlarge 48xlarge", _NEURON, {"3xlarge": 8, "48xlarge": 128}),
    "inf2": _Family(
        4,
        "xlarge 8xlarge 24xlarge 48xlarge",
        _NEURON,
        {"xlarge": 2, "8xlarge": 2, "24xlarge": 12, "48xlarge": 24},
    ),
}
_AWS_MEMORY_GIB: Final = {"p5.4xlarge": 256, "trn2.3xlarge": 128}
"""Sizes that leave the rule of their family."""

_GCP: Final[Mapping[str, _Family]] = {
    "n1-standard": _Family(3.75, "1 2 4 8 16 32 64 96"),
    "n1-highmem": _Family(6.5, "2 4 8 16 32 64 96"),
    "n1-highcpu": _Family(0.9, "2 4 8 16 32 64 96"),
    "n2-standard": _Family(4, "2 4 8 16 32 48 64 80 96 128"),
    "n2-highmem": _Family(8, "2 4 8 16 32 48 64 80 96 128"),
    "n2-highcpu": _Family(1, "2 4 8 16 32 48 64 80 96"),
    "n2d-standard": _Family(4, "2 4 8 16 32 48 64 80 96 128 224"),
    "n2d-highmem": _Family(8, "2 4 8 16 32 48 64 80 96"),
    "n2d-highcpu": _Family(1, "2 4 8 16 32 48 64 80 96 128 224"),
    "e2-standard": _Family(4, "2 4 8 16 32"),
    "e2-highmem": _Family(8, "2 4 8 16"),
    "e2-highcpu": _Family(1, "2 4 8 16 32"),
    "c2-standard": _Family(4, "4 8 16 30 60"),
    "c3-standard": _Family(4, "4 8 22 44 88 176"),
    "c3-highmem": _Family(8, "4 8 22 44 88 176"),
    "c3-highcpu": _Family(2, "4 8 22 44 88 176"),
    "g2-standard": _Family(4, "4 8 12 16 24 32 48 96", ("L4",), {"24": 2, "48": 4, "96": 8}),
    "g4-standard": _Family(3.75, "48 96 192 384", ("RTX-PRO-6000",), {"96": 2, "192": 4, "384": 8}),
    "a2-highgpu": _Family(85 / 12, "1g=12 2g=24 4g=48 8g=96", ("A100", "A100-40G")),
    "a2-ultragpu": _Family(170 / 12, "1g=12 2g=24 4g=48 8g=96", ("A100", "A100-80G")),
    "a2-megagpu": _Family(1360 / 96, "16g=96", ("A100", "A100-40G")),
    "a3-highgpu": _Family(9, "1g=26 2g=52 4g=104 8g=208", ("H100",)),
    "a3-edgegpu": _Family(9, "8g=208", ("H100",)),
    "a3-megagpu": _Family(9, "8g=208", ("H100",)),
    "a3-ultragpu": _Family(2952 / 224, "8g=224", ("H200",)),
    "a4-highgpu": _Family(3968 / 224, "8g=224", ("B200",)),
}
_GCP_MEMORY_GIB: Final = {"n2-highmem-128": 864}
_GCP_CUSTOM = re.compile(r"(?:(n2|n2d|e2)-)?custom-(\d+)-(\d+)(?:-ext)?")

_GCP_GPUS: Final[Mapping[str, tuple[str, ...]]] = {
    "nvidia-tesla-t4": ("T4",),
    "nvidia-tesla-p4": ("P4",),
    "nvidia-tesla-p100": ("P100",),
    "nvidia-tesla-v100": ("V100",),
}
"""Cards that can be attached to an n1 machine."""

_TPU_HOSTS: Final[Mapping[tuple[str, int], tuple[int, int]]] = {
    ("v4", 4): (240, 407),
    ("v5p", 4): (208, 448),
    ("v5e", 1): (24, 48),
    ("v5e", 4): (112, 192),
    ("v5e", 8): (224, 384),
    ("v6e", 1): (44, 176),
    ("v6e", 4): (180, 720),
    ("v6e", 8): (180, 1440),
    ("v7x", 4): (224, 960),
}
"""Virtual CPUs and GiB of a host, by generation and chips per host."""


def machine_type(cloud: Cloud, name: str) -> MachineType | None:
    """Return what a machine type has; None when it is not in the table."""
    if cloud == "aws":
        family, _, size = name.partition(".")
        return _sized(name, _AWS.get(family), size, _AWS_MEMORY_GIB)
    if match := _GCP_CUSTOM.fullmatch(name):
        attachable = match[1] is None
        return MachineType(name, int(match[2]), int(match[3]) << 20, accepts_gpus=attachable)
    family, _, size = name.rpartition("-")
    return _sized(name, _GCP.get(family), size, _GCP_MEMORY_GIB)


def machine_types(cloud: Cloud) -> tuple[MachineType, ...]:
    """Return the whole table of a cloud."""
    families, separator = (_AWS, ".") if cloud == "aws" else (_GCP, "-")
    names = (f"{name}{separator}{s}" for name, f in families.items() for s in _cpus_of_sizes(f))
    return tuple(found for name in names if (found := machine_type(cloud, name)))


def misspelled(cloud: Cloud, name: str) -> str | None:
    """Return a hint when the name is nearly one of the table, and is surely not a newer one."""
    if machine_type(cloud, name) is not None:
        return None
    if cloud == "aws":
        families, family, separator = _AWS, name.partition(".")[0], "."
    else:
        families, family, separator = _GCP, name.rpartition("-")[0], "-"
        series, _, kind = family.partition("-")
        kinds = [known.partition("-")[2] for known in _GCP if known.startswith(f"{series}-")]
        near = get_close_matches(kind, kinds, n=1)
        family = f"{series}-{near[0]}" if near and name.count("-") == 2 else family
    if family not in families:
        return None
    sold = [f"{family}{separator}{size}" for size in _cpus_of_sizes(families[family])]
    return did_you_mean(name, sold) or f"one of {', '.join(sold)}"


def attached_gpu_types(name: str) -> tuple[str, ...]:
    """Return Ray's names of a card of Google Cloud, for example nvidia-tesla-t4 or its URL."""
    return _GCP_GPUS.get(name.rpartition("/")[2].removesuffix("-vws"), ())


def tpu_host(tpu_type: TpuType, chips: int) -> MachineType | None:
    """Return what a host of a TPU slice has, for example v5e with 8 chips."""
    found = _TPU_HOSTS.get((tpu_type, chips))
    if found is None:
        return None
    cpus, memory_gib = found
    return MachineType(
        f"host of {chips} {tpu_type} chips",
        cpus,
        memory_gib * _GIB,
        resource="TPU",
        num_accelerators=chips,
    )


def _cpus_of_sizes(family: _Family) -> dict[str, int]:
    """Count the CPUs of each size: given, a number itself, or 4 for each x of "2xlarge"."""
    named = {"medium": 1, "large": 2, "xlarge": 4}
    found = {}
    for entry in family.sizes.split():
        size, _, cpus = entry.partition("=")
        if not cpus and not size.isdigit():
            found[size] = named.get(size) or 4 * int(size.removesuffix("xlarge"))
        else:
            found[size] = int(cpus or size)
    return found


def _sized(
    name: str, family: _Family | None, size: str, exceptions: Mapping[str, int]
) -> MachineType | None:
    cpus = _cpus_of_sizes(family).get(size) if family else None
    if family is None or cpus is None:
        return None
    # Google Cloud's "8g" says the number of GPUs.
    default = int(size[:-1]) if re.fullmatch(r"\d+g", size) else 1
    types = family.accelerator_types
    return MachineType(
        name,
        cpus,
        round(exceptions.get(name, cpus * family.gib_per_cpu) * _GIB),
        resource=("neuron_cores" if types == _NEURON else "GPU") if types else None,
        accelerator_types=types,
        num_accelerators=family.counts.get(size, default) if types else 0,
        accepts_gpus=name.startswith("n1-"),
    )
