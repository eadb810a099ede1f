"""The kinds of machine that a cluster can have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kovar.resources.tpu_slice import TpuType, num_hosts


@dataclass(frozen=True)
class NodeType:
    """One kind of machine, or of TPU slice: a slice of several hosts comes and goes as one.

    Args:
        name: as in cluster.yaml.
        cpus: logical CPUs per host.
        memory_bytes: memory per host that workers may reserve; None when it is not declared.
        gpu_types: Ray's accelerator types of its GPUs, for example ("A100", "A100-80G").
        num_gpus: GPUs per host.
        accelerator_memory_bytes: memory of each GPU or TPU chip; None when it is not known.
        tpu_type: TPU generation, for example "v6e".
        tpu_topology: shape of the slice.
        num_tpu_chips: TPU chips per host.
        min_count: nodes (slices) that are always up.
        max_count: most nodes (slices) of this type; `min_count` when none can be added.
        is_head: whether this is the head node's type.
        disk_bytes: local disk per host; None when it is not declared.
        custom_resources: amounts per host of resources that only this cluster knows.
        interconnect: what joins its accelerators, for example "NVLink"; None when not known.
        price_per_hour: US dollars per node (slice); None when not declared.
        spot: whether the cloud may take it away at any time.
        labels: what Ray's scheduler sees: the declared ones, and those that Ray adds.
    """

    name: str
    cpus: float
    memory_bytes: int | None = None
    gpu_types: tuple[str, ...] = ()
    num_gpus: int = 0
    accelerator_memory_bytes: int | None = None
    tpu_type: TpuType | None = None
    tpu_topology: str | None = None
    num_tpu_chips: int = 0
    min_count: int = 0
    max_count: int = 1
    is_head: bool = False
    disk_bytes: int | None = None
    custom_resources: Mapping[str, float] = field(default_factory=dict, hash=False)
    interconnect: str | None = None
    price_per_hour: float | None = None
    spot: bool = False
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def num_hosts(self) -> int:
        """Hosts of one node: more than one only for a large TPU slice."""
        return num_hosts(self.tpu_topology) if self.tpu_topology else 1

    @property
    def accelerator(self) -> str | None:
        """What a person calls its accelerator, for example "A100:4" or "v6e 2x4"."""
        if self.tpu_type:
            return f"{self.tpu_type} {self.tpu_topology}"
        return f"{(*self.gpu_types, 'GPU')[0]}:{self.num_gpus}" if self.num_gpus else None
