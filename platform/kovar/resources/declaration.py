"""What the labels of a node type and its cloud's machine settings say about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kovar.config import Document, FieldPath, parse_size
from kovar.errors import did_you_mean

PREFIX: Final = "kovar.dev/"
PRICE_LABEL: Final = f"{PREFIX}price-per-hour"
SPOT_LABEL: Final = f"{PREFIX}spot"
GPU_MEMORY_LABEL: Final = f"{PREFIX}gpu-memory"
DISK_LABEL: Final = f"{PREFIX}disk"
INTERCONNECT_LABEL: Final = f"{PREFIX}interconnect"
KOVAR_LABELS: Final = (
    PRICE_LABEL, SPOT_LABEL, GPU_MEMORY_LABEL, DISK_LABEL, INTERCONNECT_LABEL,
)  # fmt: skip


@dataclass(frozen=True)
class Declared:
    """What Kovar's labels declare of a node type; None where they are silent."""

    price_per_hour: float | None = None
    spot: bool | None = None
    gpu_memory_bytes: int | None = None
    disk_bytes: int | None = None
    interconnect: str | None = None


def read_labels(document: Document, at: FieldPath) -> tuple[dict[str, str], Declared]:
    """Read the labels of a node type, a mapping at `at` in the document.

    Returns:
        All labels, and what those under kovar.dev/ mean.

    Raises:
        SpecError: a label is not text, is unknown under kovar.dev/, or its value means nothing.
    """
    found: dict[str, str] = {}
    node: Any = document.data
    for part in at:
        node = node[part]
    for key, value in node.items():
        where: FieldPath = (*at, key)
        if not isinstance(value, str):
            raise document.error_at(
                where, "a label is text", got=value, hint=f'put it in quotes: "{value}"'
            )
        if str(key).startswith(PREFIX) and key not in KOVAR_LABELS:
            raise document.error_at(
                where,
                "not a label that Kovar reads",
                allowed=", ".join(KOVAR_LABELS),
                hint=did_you_mean(str(key), list(KOVAR_LABELS)),
            )
        found[str(key)] = value
    return found, Declared(
        price_per_hour=_price(document, (*at, PRICE_LABEL), found.get(PRICE_LABEL)),
        spot=_flag(document, (*at, SPOT_LABEL), found.get(SPOT_LABEL)),
        gpu_memory_bytes=_size(document, (*at, GPU_MEMORY_LABEL), found.get(GPU_MEMORY_LABEL)),
        disk_bytes=_size(document, (*at, DISK_LABEL), found.get(DISK_LABEL)),
        interconnect=found.get(INTERCONNECT_LABEL),
    )


def _price(document: Document, at: FieldPath, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < 1e6:
        raise document.error_at(at, 'must be US dollars per hour, such as "3.67"', got=repr(text))
    return price


def _flag(document: Document, at: FieldPath, text: str | None) -> bool | None:
    if text not in (None, "true", "false"):
        raise document.error_at(
            at, "says whether it is a Spot machine", got=text, allowed='"true", "false"'
        )
    return None if text is None else text == "true"


def _size(document: Document, at: FieldPath, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError as problem:
        raise document.error_at(at, str(problem), got=repr(text)) from None
    return int(str(size))


def disk_of(config: Mapping[str, Any]) -> int | None:
    """Find the size of a machine's disks, in bytes, in Google Cloud's or AWS's settings."""
    sizes = [
        size
        for disk in (*_mappings(config.get("disks")), *_mappings(config.get("BlockDeviceMappings")))
        for settings, key in (
            (disk.get("initializeParams"), "diskSizeGb"),
            (disk.get("Ebs"), "VolumeSize"),
        )
        if isinstance(settings, Mapping) and isinstance(size := settings.get(key), int)
    ]
    # Both clouds count in GiB, whatever the name of the field says.
    return sum(sizes) << 30 if sizes else None


def is_spot(config: Mapping[str, Any]) -> bool:
    """Whether a machine's settings, Google Cloud's or AWS's, ask for one that can be taken away."""

    def said(group: str, key: str) -> Any:
        settings = config.get(group)
        # Ray's own defaults write Google Cloud's scheduling as a list of mappings.
        several = settings if isinstance(settings, list) else [settings]
        found = [one[key] for one in several if isinstance(one, Mapping) and key in one]
        return found[-1] if found else None

    return (
        str(said("scheduling", "provisioningModel")).upper() == "SPOT"
        or said("scheduling", "preemptible") is True
        or said("schedulingConfig", "spot") is True
        or said("schedulingConfig", "preemptible") is True
        or said("InstanceMarketOptions", "MarketType") == "spot"
    )


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))
