"""What is publicly known about each accelerator: memory, peak rates, bandwidth, with its source.

Names are the values of Ray's `accelerator_type` constants (`ray.util.accelerators`), compared with
the installed Ray by a test. Rates are *dense*: vendors like to print the rate for matrices of which
half is zeros, which is twice as high. One entry is one thing that Ray counts: a card, one of the
two dies of an AMD MI250, a TPU chip, a NeuronCore.

Several products hide behind some names: Ray finds "A100" on cards with 40 GB and with 80 GB. The
title says which product the rates belong to. `memory_sizes` lists every size that is sold under the
name, and `memory_bytes`, which decides whether something fits, is the smallest of them. So a plan
for a bare A100 is right on every A100; ask for A100-80G, or label the node type with
kovar.dev/gpu-memory, to count on more.

Sizes count a GB as 10⁹ bytes where the data sheet says GB. Drivers usually report a little more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from kovar.resources.tpu_slice import RAY_TPU_TYPES

Kind = Literal["gpu", "tpu", "neuron", "hpu"]

_GB: Final = 10**9
_GIB: Final = 1 << 30
_TERA: Final = 1e12

# Each column of rates in the tables below, in the order of the positional arguments of `_rates`.
_PRECISIONS: Final = ("fp32", "tf32", "fp16", "bf16", "fp8")


@dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator, as far as its maker publishes it.

    Args:
        name: Ray's `accelerator_type`.
        kind: what Ray counts it as: GPU, TPU, neuron_cores or HPU.
        title: the product that the rates and the bandwidth belong to.
        memory_sizes: every size that is sold under this name, in bytes, ascending.
        flops: peak dense FLOP/s by precision; a precision without a published rate is absent.
        bandwidth: peak bandwidth of its memory in bytes/s; None where it is not published.
        capability: CUDA compute capability; None on other chips.
        interconnect: how it reaches its neighbors in one machine or slice.
        source: where the figures are published.
    """

    name: str
    kind: Kind
    title: str
    memory_sizes: tuple[int, ...]
    flops: Mapping[str, float]
    bandwidth: float | None
    capability: tuple[int, int] | None
    interconnect: str | None
    source: str

    @property
    def memory_bytes(self) -> int:
        """The memory that every product of this name has at least, in bytes."""
        return self.memory_sizes[0]

    @property
    def memory_is_ambiguous(self) -> bool:
        """Whether some products of this name have more memory than `memory_bytes`."""
        return len(self.memory_sizes) > 1


def _rates(*tera: float | None) -> Mapping[str, float]:
    """Name rates given in TFLOP/s, in the order of `_PRECISIONS`."""
    named = zip(_PRECISIONS, tera, strict=False)
    return MappingProxyType({name: rate * _TERA for name, rate in named if rate is not None})


def _nvidia(
    name: str,
    title: str,
    capability: tuple[int, int],
    memory_gb: tuple[int, ...],
    bandwidth_gb: float,
    rates: tuple[float | None, ...],
    interconnect: str,
    source: str,
) -> Accelerator:
    sizes = tuple(size * _GB for size in memory_gb)
    return Accelerator(
        name, "gpu", f"NVIDIA {title}", sizes, _rates(*rates), bandwidth_gb * _GB, capability,
        interconnect, source,
    )  # fmt: skip


def _amd(
    name: str,
    memory_gb: int,
    bandwidth_gb: float,
    rates: tuple[float | None, ...],
    source: str,
    *,
    part: str = "",
) -> Accelerator:
    title = f"AMD Instinct {name.removesuffix('-OAM').split('-')[-1]}{part}"
    return Accelerator(
        f"AMD-Instinct-{name}", "gpu", title, (memory_gb * _GB,), _rates(*rates),
        bandwidth_gb * _GB, None, "Infinity Fabric", source,
    )  # fmt: skip


def _tpu(
    short: Literal["v4", "v5p", "v5e", "v6e", "v7x"],
    memory_bytes: int,
    bandwidth_gb: float,
    torus: str,
    bf16: float,
    fp8: float | None = None,
) -> Accelerator:
    page = "tpu7x" if short == "v7x" else short
    return Accelerator(
        RAY_TPU_TYPES[short], "tpu", f"Google TPU {short}", (memory_bytes,),
        _rates(None, None, None, bf16, fp8), bandwidth_gb * _GB, None, f"ICI, {torus} torus",
        f"https://cloud.google.com/tpu/docs/{page}",
    )  # fmt: skip


_A100_SHEET: Final = (
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
    "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
_HGX_PAGE: Final = "https://www.nvidia.com/en-us/data-center/hgx/"
_AMD_PAGES: Final = "https://www.amd.com/en/products/accelerators/instinct"
_AMD_SHEETS: Final = "https://www.amd.com/content/dam/amd/en/documents/instinct-tech-docs"

_NVIDIA: Final = (
    # name, product, capability, GB, GB/s, TFLOP/s of (fp32, tf32, fp16, bf16, fp8)
    _nvidia(
        "P4", "Tesla P4", (6, 1), (8,), 192, (5.5,), "PCIe 3.0",
        "https://images.nvidia.com/content/pdf/tesla/184457-Tesla-P4-Datasheet-NV-Final-Letter-Web.pdf",
    ),
    _nvidia(
        "P100", "Tesla P100 PCIe 12 GB", (6, 0), (12, 16), 549, (9.3, None, 18.7), "PCIe 3.0",
        "https://images.nvidia.com/content/tesla/pdf/nvidia-tesla-p100-PCIe-datasheet.pdf",
    ),
    _nvidia(
        "V100", "V100 SXM2", (7, 0), (16, 32), 900, (15.7, None, 125), "NVLink, 300 GB/s",
        "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf",
    ),
    _nvidia(
        "T4", "T4", (7, 5), (16,), 320, (8.1, None, 65), "PCIe 3.0",
        "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf",
    ),
    # The A10G of Amazon has half of the tensor rate of NVIDIA's A10.
    _nvidia(
        "A10G", "A10G", (8, 6), (24,), 600, (35, 35, 70, 70), "PCIe 4.0",
        "https://d1.awsstatic.com/product-marketing/ec2/NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf",
    ),
    _nvidia(
        "A100", "A100 SXM 40 GB", (8, 0), (40, 80), 1555, (19.5, 156, 312, 312),
        "NVLink, 600 GB/s", _A100_SHEET,
    ),
    _nvidia(
        "A100-40G", "A100 SXM 40 GB", (8, 0), (40,), 1555, (19.5, 156, 312, 312),
        "NVLink, 600 GB/s", _A100_SHEET,
    ),
    _nvidia(
        "A100-80G", "A100 PCIe or SXM 80 GB", (8, 0), (80,), 1935, (19.5, 156, 312, 312),
        "NVLink, 600 GB/s", _A100_SHEET,
    ),
    _nvidia(
        "L4", "L4", (8, 9), (24,), 300, (30.3, 60, 121, 121, 242.5), "PCIe 4.0",
        "https://resources.nvidia.com/en-us-gpu-resources/l4-tensor-datasheet",
    ),
    _nvidia(
        "L40S", "L40S", (8, 9), (48,), 864, (91.6, 183, 362, 362, 733), "PCIe 4.0",
        "https://www.nvidia.com/en-us/data-center/l40s/",
    ),
    # NVIDIA publishes no data sheet of the H20: an industry analyst does.
    _nvidia(
        "H20", "H20", (9, 0), (96, 141), 4000, (44, 74, 148, 148, 296), "NVLink, 900 GB/s",
        "https://semianalysis.com/2023/11/09/nvidias-new-china-ai-chips-circumvent/",
    ),
    _nvidia(
        "H100", "H100 SXM", (9, 0), (80, 94), 3350, (67, 494.5, 989.5, 989.5, 1979),
        "NVLink, 900 GB/s", "https://resources.nvidia.com/en-us-gpu-resources/h100-datasheet-24306",
    ),
    _nvidia(
        "H200", "H200 SXM", (9, 0), (141,), 4800, (67, 494.5, 989.5, 989.5, 1979),
        "NVLink, 900 GB/s", "https://resources.nvidia.com/en-us-gpu-resources/hpc-datasheet-sc23",
    ),
    _nvidia(
        "B200", "HGX B200", (10, 0), (180,), 7700, (75, 1125, 2250, 2250, 4500),
        "NVLink, 1800 GB/s", _HGX_PAGE,
    ),
    _nvidia(
        "B300", "HGX B300", (10, 3), (270,), 7700, (75, 1125, 2250, 2250, 4500),
        "NVLink, 1800 GB/s", _HGX_PAGE,
    ),
    # The sheets of the racks give totals for 72 GPUs.
    _nvidia(
        "GB200", "GB200 NVL72", (10, 0), (186,), 8000, (80, 1250, 2500, 2500, 5000),
        "NVLink, 1800 GB/s", "https://www.nvidia.com/en-us/data-center/gb200-nvl72/",
    ),
    _nvidia(
        "GB300", "GB300 NVL72", (10, 3), (277,), 8000, (80, 1250, 2500, 2500, 5000),
        "NVLink, 1800 GB/s", "https://www.nvidia.com/en-us/data-center/gb300-nvl72/",
    ),
    # Its tensor rates are published for 4-bit numbers with sparsity only.
    _nvidia(
        "RTX-PRO-6000", "RTX PRO 6000 Blackwell Server Edition", (12, 0), (96,), 1597, (120,),
        "PCIe 5.0", "https://www.nvidia.com/en-us/data-center/rtx-pro-6000-blackwell-server-edition/",
    ),
)  # fmt: skip

_AMD: Final = (
    # name, GB, GB/s, TFLOP/s of (fp32, tf32, fp16, bf16, fp8); fp32 is the rate of matrix units.
    _amd("MI210", 64, 1638, (45.3, None, 181, 181), f"{_AMD_PAGES}/mi200/mi210.html"),
    # A card of the MI250 line is two dies, and Ray counts each of them as a GPU.
    _amd(
        "MI250X-MI250", 64, 1638, (45.25, None, 181, 181), f"{_AMD_PAGES}/mi200/mi250.html",
        part=", one of two dies",
    ),
    _amd(
        "MI250X", 64, 1638, (47.85, None, 191.5, 191.5), f"{_AMD_PAGES}/mi200/mi250x.html",
        part=", one of two dies",
    ),
    _amd(
        "MI300A", 128, 5300, (122.6, 490.3, 980.6, 980.6, 1961.2),
        f"{_AMD_SHEETS}/data-sheets/amd-instinct-mi300a-data-sheet.pdf",
    ),
    _amd(
        "MI300X-OAM", 192, 5300, (163.4, 653.7, 1307.4, 1307.4, 2614.9),
        f"{_AMD_SHEETS}/data-sheets/amd-instinct-mi300x-data-sheet.pdf",
    ),
    _amd(
        "MI325X-OAM", 256, 6000, (163.4, 653.7, 1307.4, 1307.4, 2614.9),
        f"{_AMD_SHEETS}/product-briefs/instinct-mi325x-datasheet.pdf",
    ),
    _amd(
        "MI350X-OAM", 288, 8000, (144.2, None, 2306.9, 2306.9, 4613.7),
        f"{_AMD_SHEETS}/product-briefs/amd-instinct-mi350x-gpu-brochure.pdf",
    ),
    _amd(
        "MI355X-OAM", 288, 8000, (157.3, None, 2516.6, 2516.6, 5033.2),
        f"{_AMD_SHEETS}/product-briefs/amd-instinct-mi355x-gpu-brochure.pdf",
    ),
)  # fmt: skip

_TPU: Final = (
    # generation, memory, GB/s, torus, TFLOP/s in bf16 and fp8
    _tpu("v4", 32 * _GIB, 1200, "3D", 275),
    _tpu("v5p", 95 * _GIB, 2765, "3D", 459),
    _tpu("v5e", 16 * _GB, 819, "2D", 197),
    _tpu("v6e", 32 * _GIB, 1638, "2D", 918),
    _tpu("v7x", 192 * _GIB, 7380, "3D", 2307, 4614),
)

_OTHERS: Final = (
    # Ray has one name for the cores of three chips, and counts cores: Trainium and Inferentia 2
    # have 2 cores and 32 GiB, Trainium 2 has 8 cores and 96 GiB. Each figure is the least of them.
    Accelerator(
        "aws-neuron-core", "neuron", "NeuronCore of AWS Trainium, Inferentia 2 or Trainium 2",
        (12 * _GIB, 16 * _GIB), _rates(22.6, 83.3, 83.3, 83.3, 95), 362.5 * _GB, None, "NeuronLink",
        "https://awsdocs-neuron.readthedocs-hosted.com/en/latest/about-neuron/arch/index.html",
    ),
    # Ray has one name for Gaudi 1 (32 GB, no published rates), 2 (96 GB) and 3 (128 GB).
    Accelerator(
        "Intel-GAUDI", "hpu", "Intel Gaudi 2", (32 * _GB, 96 * _GB, 128 * _GB),
        _rates(None, None, None, 432, 865), 2450 * _GB, None, "RoCE, 24 × 100 Gbit/s",
        "https://cdrdv2-public.intel.com/817486/gaudi-3-ai-accelerator-white-paper.pdf",
    ),
)  # fmt: skip

ACCELERATORS: Final[Mapping[str, Accelerator]] = MappingProxyType(
    {entry.name: entry for entry in (*_NVIDIA, *_AMD, *_TPU, *_OTHERS)}
)
"""By Ray's accelerator type."""

_BY_TPU_GENERATION: Final = {
    short: ACCELERATORS[name] for short, name in RAY_TPU_TYPES.items()
}  # fmt: skip


def accelerator(name: str | None) -> Accelerator | None:
    """Find an accelerator by Ray's type ("A100", "TPU-V6E") or a TPU's short name ("v6e").

    Returns:
        None for a name that the table lacks: nothing is assumed about it.
    """
    if name is None:
        return None
    return ACCELERATORS.get(name) or _BY_TPU_GENERATION.get(name)  # type: ignore[call-overload]


def accelerator_memory(names: tuple[str, ...]) -> int | None:
    """Return the memory of one card or chip that carries all of these accelerator types, in bytes.

    A node of 80 GB cards is declared as A100 and as A100-80G: the most telling name counts.

    Returns:
        None when no name is in the table.
    """
    known = [entry for entry in map(accelerator, names) if entry is not None]
    exact = [entry for entry in known if not entry.memory_is_ambiguous]
    return min((entry.memory_bytes for entry in exact or known), default=None)


def interconnect_of(names: tuple[str, ...]) -> str | None:
    """Return what joins the accelerators of a machine that carries these types, if it is known."""
    known = (entry for entry in map(accelerator, names) if entry is not None)
    return next((entry.interconnect for entry in known), None)
