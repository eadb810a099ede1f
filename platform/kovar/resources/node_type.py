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
        tpu_type: TPU generation, for example "v6e".
        tpu_topology: shape of the slice.
        num_tpu_chips: TPU chips per host.
        min_count: nodes (slices) that are always up.
        max_count: most nodes (slices) of this type; `min_count` when none can be added.
        is_head: whether this is the head node's type.
        max_workers: most nodes of all types of the cluster together, the head not counted; None
            for no such limit.
        labels: Ray node labels.
    """

    name: str
    cpus: float
    memory_bytes: int | None = None
    gpu_types: tuple[str, ...] = ()
    num_gpus: int = 0
    tpu_type: TpuType | None = None
    tpu_topology: str | None = None
    num_tpu_chips: int = 0
    min_count: int = 0
    max_count: int = 1
    is_head: bool = False
    max_workers: int | None = None
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
