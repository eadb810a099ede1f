"""What a Kubernetes pod template says about the machine that it runs on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from kovar.config import Document, FieldPath

_POWERS: Final = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(1 << 10), "Mi": Decimal(1 << 20), "Gi": Decimal(1 << 30),
    "Ti": Decimal(1 << 40), "Pi": Decimal(1 << 50), "Ei": Decimal(1 << 60),
}  # fmt: skip
_QUANTITY: Final = re.compile(r"(\d+\.?\d*|\.\d+)(?:([eE][+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)")

GKE_GPU: Final = "cloud.google.com/gke-accelerator"
GKE_TPU: Final = "cloud.google.com/gke-tpu-accelerator"
GKE_TPU_TOPOLOGY: Final = "cloud.google.com/gke-tpu-topology"

# What Ray detects on such a node, then what tells its size, where Ray has a name for that.
GKE_GPU_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "nvidia-tesla-p4": ("P4",),
    "nvidia-tesla-p100": ("P100",),
    "nvidia-tesla-v100": ("V100",),
    "nvidia-tesla-t4": ("T4",),
    "nvidia-l4": ("L4",),
    "nvidia-tesla-a100": ("A100", "A100-40G"),
    "nvidia-a100-80gb": ("A100", "A100-80G"),
    "nvidia-h100-80gb": ("H100",),
    "nvidia-h100-mega-80gb": ("H100",),
    "nvidia-h200-141gb": ("H200",),
    "nvidia-b200": ("B200",),
    "nvidia-gb200": ("GB200",),
    "nvidia-rtx-pro-6000": ("RTX-PRO-6000",),
}
"""Source: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus, compared by the tests with
the table of accelerators."""

_SHARED_GPU: Final = (
    "cloud.google.com/gke-gpu-partition-size",
    "cloud.google.com/gke-max-shared-clients-per-gpu",
)
_SPOT_SELECTORS: Final = {
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-preemptible": "true",
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "kubernetes.azure.com/scalesetpriority": "spot",
}


def find(document: Document, at: FieldPath) -> Any:
    """Return what stands at a place of a manifest; None when nothing does."""
    value = document.data
    for part in at:
        if isinstance(part, int) and isinstance(value, list):
            value = value[part] if part < len(value) else None
        elif isinstance(value, Mapping):
            value = value.get(part)
        else:
            return None
    return value


def mapping_at(document: Document, at: FieldPath) -> Mapping[str, Any]:
    """Return the mapping at a place; an empty one when nothing stands there.

    Raises:
        SpecError: something else stands there.
    """
    value = find(document, at)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise document.error_at(at, "must be a mapping (key: value lines)", got=value)
    return value


def texts_at(document: Document, at: FieldPath) -> Mapping[str, str]:
    """Return a mapping whose values must be text, as Kubernetes wants labels and parameters.

    Raises:
        SpecError: a value is a number or a flag.
    """
    for key, value in mapping_at(document, at).items():
        if not isinstance(value, str):
            raise document.error_at(
                (*at, key),
                "Kubernetes takes text only here",
                got=value,
                hint=f'put it in quotes: "{str(value).lower()}"',
            )
    return mapping_at(document, at)


def count_at(document: Document, at: FieldPath, *, default: int) -> int:
    """Return the whole number at a place.

    Raises:
        SpecError: not a whole number, or below 0.
    """
    value = find(document, at)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise document.error_at(at, "must be a whole number, 0 or more", got=value)
    return value


def parse_quantity(value: object) -> int:
    """Read a quantity of Kubernetes, rounded up to a whole number: "500m" → 1, "2Gi" → 2³¹.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/

    Raises:
        ValueError: not a quantity.
    """
    match = _QUANTITY.fullmatch(str(value))
    if match is None or isinstance(value, bool):
        raise ValueError('a quantity is a number or text such as "500m", "22Gi" or "200G"')
    number, exponent, unit = match.groups()
    amount = Decimal(number + (exponent or "")) * _POWERS[unit or ""]
    return int(amount.to_integral_value(rounding=ROUND_CEILING))


def quantity_at(document: Document, at: FieldPath) -> int | None:
    """Return the quantity at a place, rounded up; None when nothing stands there.

    Raises:
        SpecError: not a quantity.
    """
    value = find(document, at)
    if value is None:
        return None
    try:
        return parse_quantity(value)
    except ValueError as problem:
        raise document.error_at(at, str(problem), got=repr(value)) from None


def is_spot_pod(selector: Mapping[str, str]) -> bool:
    """Whether a node selector asks for machines that can be taken away."""
    return any(selector.get(key) == value for key, value in _SPOT_SELECTORS.items())


def shares_gpu(selector: Mapping[str, str]) -> bool:
    """Whether what the pod gets as a GPU is a part of a card, so that its memory is not known."""
    return any(key in selector for key in _SHARED_GPU)
