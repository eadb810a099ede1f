"""The parts of a KubeRay manifest that several rules look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kovar.config import FieldPath
from kovar.resources.kuberay import CLUSTER_OF
from kovar.resources.kubernetes import is_spot_pod, parse_quantity
from kovar.resources.lint.node import ClusterSource, NodeDeclaration, meant_resource
from kovar.resources.machine_types import Cloud


@dataclass(frozen=True)
class Group(NodeDeclaration):
    """A group of equal pods; its `config` is the pod's."""

    @property
    def pod(self) -> FieldPath:
        """Path of the pod's settings."""
        return self.at("template", "spec")

    @property
    def container(self) -> FieldPath:
        """Path of Ray's container, which is the first."""
        return (*self.pod, "containers", 0)

    @property
    def selector(self) -> Mapping[str, str]:
        """What the pod asks of its Kubernetes node."""
        selector = self.config.get("nodeSelector")
        items = selector.items() if isinstance(selector, Mapping) else ()
        return {str(key): value for key, value in items if isinstance(value, str)}

    @property
    def spot(self) -> bool:
        """Whether the pod runs on machines that the cloud may take away."""
        return is_spot_pod(self.selector)


@dataclass(frozen=True)
class Manifest(ClusterSource):
    """A RayCluster, RayJob or RayService under examination."""

    @property
    def cloud(self) -> Cloud | None:
        """None: pods name no machine types."""
        return None

    @cached_property
    def at(self) -> FieldPath:
        """Path of the cluster."""
        return CLUSTER_OF.get(str(self.get(("kind",))), ("spec",))

    @cached_property
    def head(self) -> Group:
        """The head's group."""
        return self._group((*self.at, "headGroupSpec"), "the head", is_head=True)

    @cached_property
    def workers(self) -> tuple[Group, ...]:
        """The groups of workers."""
        at = (*self.at, "workerGroupSpecs")
        return tuple(
            self._group((*at, index), str(self.get((*at, index, "groupName")) or index))
            for index in range(len(self.items(at)))
        )

    @property
    def node_types(self) -> tuple[Group, ...]:
        """All groups, the head's first."""
        return (self.head, *self.workers)

    def containers(self) -> Iterator[tuple[Group, FieldPath]]:
        """Walk through the containers of all groups."""
        for group in self.node_types:
            for index in range(len(self.items((*group.pod, "containers")))):
                yield group, (*group.pod, "containers", index)

    def environment(self, container: FieldPath) -> dict[str, tuple[FieldPath, Any]]:
        """Return the literal environment variables of a container: name → path and value."""
        found = {}
        for index, entry in enumerate(self.items((*container, "env"))):
            if isinstance(entry, Mapping) and "value" in entry:
                path = (*container, "env", index, "value")
                found[str(entry.get("name"))] = (path, entry["value"])
        return found

    def quantity(self, path: FieldPath) -> int | None:
        """Return a quantity of Kubernetes; None when there is none that can be read."""
        value = self.get(path)
        try:
            return None if value is None else parse_quantity(value)
        except ValueError:
            return None

    def _group(self, path: FieldPath, name: str, *, is_head: bool = False) -> Group:
        pod = (*path, "template", "spec")
        declared = (*path, "resources")
        amounts = {
            meant_resource(str(key)): float(amount)
            for key in self.mapping(declared)
            if (amount := self.quantity((*declared, key))) is not None
        }
        for kind in ("limits", "requests"):
            given = (*pod, "containers", 0, "resources", kind)
            for key in self.mapping(given):
                name_in_ray = _in_ray(str(key))
                amount = self.quantity((*given, key))
                if name_in_ray is not None and amount is not None:
                    amounts.setdefault(name_in_ray, float(amount))
        labels = self.mapping((*path, "labels"))
        return Group(
            name=name,
            path=path,
            is_head=is_head,
            resources=amounts,
            config=self.mapping(pod),
            labels={str(k): v for k, v in labels.items() if isinstance(v, str)},
        )


def _in_ray(key: str) -> str | None:
    """Return what Ray calls a resource of a container; None when it does not count it."""
    if key.endswith("gpu"):
        return "GPU"
    return {"google.com/tpu": "TPU", "cpu": "CPU", "memory": "memory"}.get(key)
