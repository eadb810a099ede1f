"""One node type of a file under examination, however its cluster is written."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kovar.config import FieldPath
from kovar.resources.cluster_file import ACCELERATOR_PREFIX
from kovar.resources.declaration import SPOT_LABEL, is_spot
from kovar.resources.lint.source import Source
from kovar.resources.machine_types import Cloud

_RESOURCES: Final = ("CPU", "GPU", "TPU", "memory", "object_store_memory", "neuron_cores", "HPU")
_SLIPS: Final = {
    "cpus": "CPU", "num_cpus": "CPU", "vcpu": "CPU", "vcpus": "CPU",
    "gpus": "GPU", "num_gpus": "GPU", "tpus": "TPU", "mem": "memory", "ram": "memory",
}  # fmt: skip


def meant_resource(key: str) -> str:
    """Return the name that Ray gives to a resource that is spelled like this, or nearly so."""
    lower = key.casefold()
    if key in _RESOURCES or key.startswith(ACCELERATOR_PREFIX):
        return key
    if re.match(r"accelerator[-_ ]?types?:", lower):
        return ACCELERATOR_PREFIX + key.partition(":")[2]
    exact = next((name for name in _RESOURCES if name.casefold() == lower), key)
    return _SLIPS.get(lower, exact)


@dataclass(frozen=True)
class NodeDeclaration:
    """One entry of `available_node_types`, with what has the wrong type left out.

    Resources have the names that are meant, so that one misspelled name is one finding.
    """

    name: str
    path: FieldPath
    is_head: bool
    resources: Mapping[str, float]
    config: Mapping[str, Any]
    labels: Mapping[str, str]

    def amount(self, resource: str) -> float:
        """Return how much of a resource is declared."""
        return self.resources.get(resource, 0)

    @property
    def spot(self) -> bool:
        """Whether the cloud may take the machine away, by its settings or its label."""
        return is_spot(self.config) or self.labels.get(SPOT_LABEL) == "true"

    def at(self, *parts: str | int) -> FieldPath:
        """Return the path of a field below this node type."""
        return (*self.path, *parts)


@dataclass(frozen=True)
class ClusterSource(Source, ABC):
    """A file that declares node types."""

    @property
    @abstractmethod
    def cloud(self) -> Cloud | None:
        """The cloud whose machine types the node types name; None when they name none."""

    @property
    @abstractmethod
    def node_types(self) -> tuple[NodeDeclaration, ...]:
        """All node types, in the order of the file."""
