"""What one worker, trial or replica needs, and how many workers there are."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from kovar.config import Config, SizeBytes
from kovar.resources.label import check_selector
from kovar.resources.tpu_slice import (
    TOPOLOGIES,
    TPU_TYPES,
    TpuType,
    chips_per_host,
    num_chips,
    num_hosts,
)

GPU_TYPES: Final = (
    "T4", "P4", "P100", "V100", "A10G", "L4", "L40S", "A100", "A100-40G", "A100-80G",
    "H20", "H100", "H200", "B200", "B300", "GB200", "GB300", "RTX-PRO-6000",
)  # fmt: skip
"""The NVIDIA names among Ray's `accelerator_type` constants. Ray knows more, and detects others
from the driver's model name, so a request may name any type: only near misses are refused."""

MAX_WORKERS: Final = 10_000

FIELD_OF_RESOURCE: Final = {
    "CPU": "cpus",
    "GPU": "count with kind: gpu",
    "TPU": "topology with kind: tpu",
    "memory": "memory",
}
"""Ray's own resources, and the field of a request that asks for each."""

PlacementStrategy = Literal["pack", "spread", "strict_pack", "strict_spread"]
"""How the workers of a group lie on nodes; the strict ones wait rather than compromise."""


def _listed(value: Any) -> Any:
    """Take one name, or several in the order of preference."""
    if value is None:
        return ()
    return (
        (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    )


def _as_listed(names: tuple[str, ...]) -> str | list[str] | None:
    return list(names) if len(names) > 1 else names[0] if names else None


class _Request(Config):
    cpus: float = Field(default=1.0, gt=0, le=4096, description="logical CPUs per worker")
    memory: SizeBytes | None = Field(
        default=None, description="memory per worker, in bytes or as 4GiB; None reserves none"
    )
    disk: SizeBytes | None = Field(
        default=None,
        description="local disk per worker, in bytes or as 50GB; held against what a node type "
        "declares, by the plan alone: Ray does not count disks",
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="labels that the node must have: key → value, !value, in(a, b) or !in(a, b)",
    )
    custom_resources: dict[str, float] = Field(
        default_factory=dict,
        description="amounts per worker of resources that a node type declares under a name of "
        "its own, for example {FPGA: 1}",
    )
    spot: bool = Field(
        default=False, description="whether a Spot node, which can be taken away, will do"
    )

    @field_validator("memory", "disk")
    @classmethod
    def _size_is_positive(cls, size: int | None, info: ValidationInfo) -> int | None:
        if size is not None and size <= 0:
            raise ValueError(f"{info.field_name} must be larger than 0 bytes")
        return size

    @field_validator("labels")
    @classmethod
    def _selectors_are_rays(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, selector in labels.items():
            check_selector(key, selector)
        return labels

    @field_validator("custom_resources")
    @classmethod
    def _custom_resources_are_custom(cls, amounts: dict[str, float]) -> dict[str, float]:
        for name, amount in amounts.items():
            if name in FIELD_OF_RESOURCE or name.startswith("accelerator_type:"):
                field = FIELD_OF_RESOURCE.get(name, "type with kind: gpu")
                raise ValueError(f"{name!r} is no custom resource: ask for it with {field}")
            if amount <= 0 or (amount > 1 and not amount.is_integer()):
                raise ValueError(
                    f"{name}: {amount:g} is not an amount: Ray gives resources whole, "
                    "or as a share below 1"
                )
        return amounts

    # A mapping cannot be hashed; requests that are equal agree in the rest as well.
    def __hash__(self) -> int:
        return hash((type(self), self.cpus, self.memory, self.disk, self.spot))


class CpuRequest(_Request):
    """A worker that computes on CPUs."""

    kind: Literal["cpu"] = "cpu"


class GpuRequest(_Request):
    """A worker that computes on GPUs, or on a share of one."""

    kind: Literal["gpu"] = "gpu"
    type: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        default=(),
        description="accelerator type as Ray names it, for example A100, or a list in order of "
        "preference; any GPU if absent",
    )
    count: float = Field(
        default=1.0,
        gt=0,
        le=1024,
        description="GPUs per worker: a whole number, or a fraction below 1",
    )
    gpu_memory: SizeBytes | None = Field(
        default=None,
        gt=0,
        description="GPU memory per worker instead of count, for example 10GiB: the share of one "
        "card that holds so much",
    )

    @field_validator("type")
    @classmethod
    def _types_are_spelled_as_ray_does(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise ValueError(f"{name!r} is not an accelerator type, such as A100")
            bare = name.casefold().removeprefix("nvidia-").removeprefix("tesla-")
            known = next((known for known in GPU_TYPES if known.casefold() == bare), name)
            if known != name:
                raise ValueError(f"Ray spells {name!r} as {known!r}, and compares exactly")
        return _without_repetition(names)

    @field_serializer("type")
    def _type_as_written(self, names: tuple[str, ...]) -> str | list[str] | None:
        return _as_listed(names)

    @model_validator(mode="after")
    def _count_or_memory(self) -> Self:
        if self.gpu_memory is not None and self.count != 1:
            raise ValueError("give count or gpu_memory, not both: one is computed from the other")
        return self

    @field_validator("count")
    @classmethod
    def _count_is_whole_or_a_share(cls, count: float) -> float:
        if count > 1 and not count.is_integer():
            raise ValueError(
                "GPUs are given whole (1, 2, 4 …) or as a share of one card (0.5, 0.25 …)"
            )
        return count


class TpuRequest(_Request):
    """A worker on one host of a TPU slice; it gets all the chips of its host."""

    kind: Literal["tpu"] = "tpu"
    type: Annotated[tuple[TpuType, ...], BeforeValidator(_listed)] = Field(
        min_length=1,
        description=f"TPU generation: {', '.join(TPU_TYPES)}; or a list in order of preference",
    )
    topology: str = Field(description="shape of the slice in chips, for example 2x4 or 2x2x2")

    @field_validator("type")
    @classmethod
    def _types_differ(cls, names: tuple[TpuType, ...]) -> tuple[TpuType, ...]:
        return _without_repetition(names)

    @field_serializer("type")
    def _type_as_written(self, names: tuple[str, ...]) -> str | list[str] | None:
        return _as_listed(names)

    @field_validator("topology")
    @classmethod
    def _topology_is_sold(cls, topology: str, info: ValidationInfo) -> str:
        for tpu_type in info.data.get("type", ()):
            if topology not in TOPOLOGIES[tpu_type]:
                raise ValueError(_topology_advice(tpu_type, topology))
        return topology

    @property
    def chips_per_host(self) -> int:
        """Chips that each worker gets."""
        return chips_per_host(self.topology)

    @property
    def num_hosts(self) -> int:
        """Hosts of one slice, and so workers per slice."""
        return num_hosts(self.topology)


NameT = TypeVar("NameT", bound=str)


def _without_repetition(names: tuple[NameT, ...]) -> tuple[NameT, ...]:
    if len(set(names)) < len(names):
        raise ValueError("an accelerator type is listed twice")
    return names


def _topology_advice(tpu_type: TpuType, topology: str) -> str:
    elsewhere = [name for name in TPU_TYPES if topology in TOPOLOGIES[name]]
    note = f"; {topology} exists on {' and '.join(elsewhere)}" if elsewhere else ""
    small = [shape for shape in TOPOLOGIES[tpu_type] if num_chips(shape) <= 64]
    return f"{tpu_type} slices have no such topology{note}. The smaller ones are {', '.join(small)}"


def _names_its_kind(value: Any) -> Any:
    if isinstance(value, dict) and "kind" not in value:
        raise ValueError("the key kind is missing: it says whether this is a cpu, gpu or tpu")
    return value


Request = Annotated[
    CpuRequest | GpuRequest | TpuRequest,
    Field(discriminator="kind"),
    BeforeValidator(_names_its_kind),
]
"""What one worker needs; `kind` is cpu, gpu or tpu."""


class WorkerRange(Config):
    """How many workers run: at least `min`, at most `max`; equal for a fixed number."""

    min: int = Field(ge=1, le=MAX_WORKERS, description="fewest workers with which the work runs")
    max: int = Field(ge=1, le=MAX_WORKERS, description="most workers that are used")

    @field_validator("max")
    @classmethod
    def _max_is_not_below_min(cls, largest: int, info: ValidationInfo) -> int:
        if "min" in info.data and largest < info.data["min"]:
            raise ValueError(f"max must be at least min, which is {info.data['min']}")
        return largest

    @property
    def is_fixed(self) -> bool:
        """Whether the number of workers cannot change during the run."""
        return self.min == self.max

    def __str__(self) -> str:
        return f"{self.min}" if self.is_fixed else f"{self.min} to {self.max}"

    @model_serializer
    def _as_written(self) -> int | dict[str, int]:
        return self.min if self.is_fixed else {"min": self.min, "max": self.max}


def _from_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | dict | WorkerRange):
        raise ValueError("a whole number of workers, or a range such as {min: 2, max: 4}")
    if not isinstance(value, int):
        return value
    if not 1 <= value <= MAX_WORKERS:
        raise ValueError(f"the number of workers must be from 1 to {MAX_WORKERS:,}")
    return {"min": value, "max": value}


NumWorkers = Annotated[WorkerRange, BeforeValidator(_from_number)]
"""`num_workers: 4`, or `num_workers: {min: 2, max: 4}` for a run that may grow and shrink."""


class Resources(Config):
    """The hardware of a group of equal workers."""

    worker: Request = Field(default=CpuRequest(), description="what each worker needs")
    num_workers: NumWorkers = Field(
        default=WorkerRange(min=1, max=1),
        validate_default=True,
        description="how many workers: a number, or {min, max} for an elastic run",
    )
    placement: PlacementStrategy = Field(
        default="pack",
        description="pack or spread the workers over nodes where possible, or strict_pack, "
        "strict_spread: all on one node, each on its own",
    )

    @field_validator("num_workers")
    @classmethod
    def _workers_fill_whole_slices(cls, number: WorkerRange, info: ValidationInfo) -> WorkerRange:
        worker = info.data.get("worker")
        if isinstance(worker, TpuRequest):
            hosts = worker.num_hosts
            wrong = [n for n in (number.min, number.max) if n % hosts]
            if wrong:
                raise ValueError(
                    f"a {worker.type[0]} {worker.topology} slice has {hosts} hosts with "
                    f"{worker.chips_per_host} chips each and one worker per host: it takes "
                    f"{hosts}, {2 * hosts}, {3 * hosts} … workers, not {number}"
                )
        return number
