"""The shapes in which TPU slices are sold, and how their chips are spread over hosts.

Source: the valid topologies and chips per host that Ray uses (`ray._private.accelerators.tpu`),
which follow https://cloud.google.com/tpu/docs/types-topologies; a test compares the two.
"""

from __future__ import annotations

import itertools
import math
from typing import Final, Literal, get_args

TpuType = Literal["v4", "v5p", "v5e", "v6e", "v7x"]
TPU_TYPES: Final[tuple[TpuType, ...]] = get_args(TpuType)

RAY_TPU_TYPES: Final[dict[TpuType, str]] = {
    "v4": "TPU-V4",
    "v5p": "TPU-V5P",
    "v5e": "TPU-V5LITEPOD",
    "v6e": "TPU-V6E",
    "v7x": "TPU-V7X",
}
"""The `accelerator_type` that Ray gives to a node of each TPU generation."""

GOOGLE_TPU_TYPES: Final[dict[str, TpuType]] = {
    "v4": "v4",
    "v5p": "v5p",
    "v5litepod": "v5e",
    "v5lite_pod": "v5e",
    "v6e": "v6e",
    "tpu7x": "v7x",
}
"""The generations as Google Cloud spells them, in lower case, in `acceleratorType` (v5litepod-8,
tpu7x-8) and in the `type` of `acceleratorConfig` (V5LITE_POD)."""

GKE_TPU_TYPES: Final[dict[str, TpuType]] = {
    "tpu-v4-podslice": "v4",
    "tpu-v5p-slice": "v5p",
    "tpu-v5-lite-device": "v5e",
    "tpu-v5-lite-podslice": "v5e",
    "tpu-v6e-slice": "v6e",
    "tpu7x": "v7x",
}
"""The generations in the node label `cloud.google.com/gke-tpu-accelerator` of Kubernetes nodes."""

_SINGLE_HOST_FLAT: Final = ("1x1", "2x2", "2x4")
_FLAT: Final = (*_SINGLE_HOST_FLAT, "2x8", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL_CUBES: Final = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_CHIPS_PER_HOST: Final = 4


def _cubes(*largest: int) -> tuple[str, ...]:
    sides = (range(4, side + 1, 4) for side in largest)
    return (*_SMALL_CUBES, *("x".join(map(str, sizes)) for sizes in itertools.product(*sides)))


TOPOLOGIES: Final[dict[TpuType, tuple[str, ...]]] = {
    "v4": _cubes(12, 12, 16),
    "v5p": _cubes(16, 16, 24),
    "v5e": _FLAT,
    "v6e": _FLAT,
    "v7x": (*_SMALL_CUBES, "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16"),
}


def num_chips(topology: str) -> int:
    """Count the chips of a slice: "4x4" → 16."""
    return math.prod(int(side) for side in topology.split("x"))


def chips_per_host(topology: str) -> int:
    """Count the chips on each host: up to 8 in a flat slice of one host, else 4."""
    return num_chips(topology) if topology in _SINGLE_HOST_FLAT else _CHIPS_PER_HOST


def num_hosts(topology: str) -> int:
    """Count the hosts of a slice; "2x4" is one host with 8 chips."""
    return num_chips(topology) // chips_per_host(topology)


def largest_on_one_host(tpu_type: TpuType) -> str:
    """Return the largest topology of a generation that needs one host only."""
    return max((shape for shape in TOPOLOGIES[tpu_type] if num_hosts(shape) == 1), key=num_chips)


def topology_of(tpu_type: TpuType, chips: int) -> str | None:
    """Return the shape that Google Cloud gives to a slice of so many chips, None if it sells none.

    Of several shapes with the same number of chips it is the one nearest to a square or cube,
    written with its sides in ascending order.
    """
    fitting = [shape for shape in TOPOLOGIES[tpu_type] if num_chips(shape) == chips]
    return min(fitting, key=_longest_side_then_order, default=None)


def _longest_side_then_order(topology: str) -> tuple[int, list[int]]:
    sides = [int(side) for side in topology.split("x")]
    return max(sides), sides


def num_cores_per_chip(tpu_type: TpuType) -> int:
    """Return the cores per chip as `acceleratorType` counts them: "v4-8" has 4 chips."""
    return 1 if tpu_type in ("v5e", "v6e") else 2
