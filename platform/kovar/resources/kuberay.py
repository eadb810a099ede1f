"""Reading node types from a KubeRay manifest: RayCluster, RayJob or RayService.

What a group offers follows KubeRay (`generateRayStartCommand`) and Ray's autoscaler
(`ray.autoscaler._private.kuberay.autoscaling_config`, which the tests compare with): the group's
own `resources`, then `rayStartParams`, then the limits of the first container. All memory of the
container is on offer.

The autoscaler reads the manifest and never a machine. What only a node that is up finds out about
itself (the type of its GPU, the place of a TPU host in its slice) starts no node, so the node type
does not count on it where the autoscaler has to start nodes; a warning in the log says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from kovar.config import Document, FieldPath
from kovar.errors import did_you_mean
from kovar.resources.accelerators import accelerator_memory, interconnect_of
from kovar.resources.cluster import Cluster
from kovar.resources.declaration import PREFIX, Declared, read_labels
from kovar.resources.kubernetes import (
    GKE_GPU,
    GKE_GPU_TYPES,
    GKE_TPU,
    GKE_TPU_TOPOLOGY,
    count_at,
    find,
    is_spot_pod,
    mapping_at,
    quantity_at,
    shares_gpu,
    texts_at,
)
from kovar.resources.node_type import NodeType
from kovar.resources.tpu_slice import (
    GKE_TPU_TYPES,
    RAY_TPU_TYPES,
    TOPOLOGIES,
    TpuType,
    chips_per_host,
    num_hosts,
)

API_GROUP: Final = "ray.io/"
HEAD_GROUP: Final = "headgroup"
"""What Ray's autoscaler calls the head's node type."""

DEFAULT_IDLE_TIMEOUT_S: Final = 60
NO_LIMIT: Final = 10_000
"""Stands for the maxReplicas of 2,147,483,647 that KubeRay fills in; no request is larger."""

_ACCELERATOR: Final = "accelerator_type:"
_AMOUNT_PARAMETERS: Final = ("num-cpus", "num-gpus", "memory", "resources")
_RAY_RESOURCES: Final = ("CPU", "GPU", "TPU", "memory")
CLUSTER_OF: Final[dict[str, FieldPath]] = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
}
"""Where each kind of manifest declares its cluster."""


def is_kuberay(document: Document) -> bool:
    """Whether a document is one of KubeRay's manifests."""
    return str(find(document, ("apiVersion",))).startswith(API_GROUP)


def read_kuberay(document: Document) -> Cluster:
    """Read the cluster that a manifest declares; its groups keep their order, the head first.

    Raises:
        SpecError: a field of the manifest, with its line.
    """
    kind = str(find(document, ("kind",)))
    if kind not in CLUSTER_OF:
        raise document.error_at(
            ("kind",),
            "not a manifest of KubeRay that holds a cluster",
            got=kind,
            allowed=", ".join(CLUSTER_OF),
            hint=did_you_mean(kind, list(CLUSTER_OF)),
        )
    at = CLUSTER_OF[kind]
    if not mapping_at(document, at):
        raise document.error_at(
            at, "no cluster is declared here", hint="plan with the RayCluster that it runs on"
        )
    grows = find(document, (*at, "enableInTreeAutoscaling")) is True
    groups = find(document, (*at, "workerGroupSpecs")) or []
    if not isinstance(groups, list):
        raise document.error_at((*at, "workerGroupSpecs"), "must be a list of groups", got=groups)
    places = [(*at, "workerGroupSpecs", number) for number in range(len(groups))]
    idle = (*at, "autoscalerOptions", "idleTimeoutSeconds")
    return Cluster(
        (
            _head(document, (*at, "headGroupSpec")),
            *_workers(document, places, grows=grows),
        ),
        idle_timeout_s=count_at(document, idle, default=DEFAULT_IDLE_TIMEOUT_S) if grows else None,
        origin=document.path.name if document.path else "the manifest",
        limit_name="maxReplicas",
    )


def _head(document: Document, at: FieldPath) -> NodeType:
    if not mapping_at(document, at):
        raise document.error_at(at, "this key is required", hint="add the group of the head")
    group = _Group(document, at, HEAD_GROUP, num_min=1, num_max=1)
    return replace(group.node_type(), is_head=True)


def _workers(document: Document, places: list[FieldPath], *, grows: bool) -> list[NodeType]:
    found: dict[str, NodeType] = {}
    for at in places:
        name = find(document, (*at, "groupName"))
        if not isinstance(name, str) or not name or name == HEAD_GROUP:
            raise document.error_at((*at, "groupName"), "a group needs a name of its own", got=name)
        if name in found:
            raise document.error_at((*at, "groupName"), "two groups have this name", got=name)
        least = count_at(document, (*at, "minReplicas"), default=0)
        most = min(count_at(document, (*at, "maxReplicas"), default=NO_LIMIT), NO_LIMIT)
        if least > most:
            raise document.error_at(
                (*at, "minReplicas"),
                "larger than maxReplicas",
                got=least,
                allowed=f"at most {most}",
            )
        if not grows:
            # Without the autoscaler KubeRay keeps `replicas` up, within the limits.
            wanted = count_at(document, (*at, "replicas"), default=least)
            least = most = min(max(wanted, least), most)
        found[name] = _Group(document, at, name, num_min=least, num_max=most).node_type()
    return list(found.values())


@dataclass(frozen=True)
class _Slice:
    """The TPU slice that a replica of a group is."""

    tpu_type: TpuType
    topology: str


@dataclass(frozen=True)
class _Group:
    """A group of equal pods at a place of a manifest."""

    document: Document
    at: FieldPath
    name: str
    num_min: int
    num_max: int

    @property
    def grows(self) -> bool:
        """Whether the autoscaler starts nodes of this group."""
        return self.num_max > self.num_min

    @property
    def pod(self) -> FieldPath:
        return (*self.at, "template", "spec")

    @property
    def container(self) -> FieldPath:
        """Ray's container is always the first one."""
        return (*self.pod, "containers", 0, "resources")

    def node_type(self) -> NodeType:
        """Describe the nodes of this group; a replica of several hosts that is a slice is one."""
        selector = texts_at(self.document, (*self.pod, "nodeSelector"))
        amounts = self._amounts()
        labels, declared = self._labels()
        tpu = self._slice(selector, amounts)
        gpus = 0 if tpu else amounts.get("GPU", 0)
        types = self._gpu_types(selector, amounts) if gpus else ()
        chips = self._chips(tpu, selector, types) if tpu or gpus else ()
        hosts = 1 if tpu else self._num_hosts()
        return NodeType(
            name=self.name,
            cpus=amounts["CPU"],
            memory_bytes=amounts.get("memory"),
            gpu_types=types,
            num_gpus=gpus,
            accelerator_memory_bytes=declared.gpu_memory_bytes
            or (None if shares_gpu(selector) else accelerator_memory(chips)),
            tpu_type=tpu.tpu_type if tpu else None,
            tpu_topology=tpu.topology if tpu else None,
            num_tpu_chips=amounts["TPU"] if tpu else 0,
            min_count=self.num_min * hosts,
            max_count=self._most(tpu, amounts) * hosts,
            disk_bytes=declared.disk_bytes or self._limit("ephemeral-storage"),
            custom_resources={
                key: amount
                for key, amount in amounts.items()
                if key not in _RAY_RESOURCES and not key.startswith(_ACCELERATOR)
            },
            interconnect=declared.interconnect or interconnect_of(chips),
            price_per_hour=declared.price_per_hour,
            spot=is_spot_pod(selector) if declared.spot is None else declared.spot,
            labels=labels,
        )

    def _chips(
        self, tpu: _Slice | None, selector: Mapping[str, str], types: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Name the accelerator in all the ways that are known, of which one tells its memory."""
        if tpu:
            return (tpu.tpu_type,)
        return (*types, *GKE_GPU_TYPES.get(selector.get(GKE_GPU, ""), ()))

    def _amounts(self) -> dict[str, int]:
        """Add up what Ray is told that each pod has."""
        own, start = (*self.at, "resources"), (*self.at, "rayStartParams")
        amounts = {
            key: quantity_at(self.document, (*own, key)) or 0
            for key in texts_at(self.document, own)
        }
        twice = [key for key in texts_at(self.document, start) if key in _AMOUNT_PARAMETERS]
        if amounts and twice:
            raise self.document.error_at(
                (*start, twice[0]),
                "KubeRay refuses amounts both here and in the group's resources",
                hint="move it to the group's resources",
            )
        if not amounts:
            amounts = self._start_resources((*start, "resources"))
        for name, parameter in (("CPU", "num-cpus"), ("memory", "memory"), ("GPU", "num-gpus")):
            if name not in amounts:
                amount = quantity_at(self.document, (*start, parameter))
                amount = self._of_container(name) if amount is None else amount
                if amount is not None:
                    amounts[name] = amount
        if "CPU" not in amounts:
            raise self.document.error_at(
                self.container,
                "the autoscaler cannot tell how many CPUs this group has",
                hint='add limits: {cpu: "8", memory: 22Gi} to the first container',
            )
        if "TPU" not in amounts and (chips := self._limit("google.com/tpu")):
            amounts["TPU"] = chips
        # Only KubeRay's start command counts these, so they start no node.
        if not self.grows and (cores := self._limit("aws.amazon.com/neuroncore")):
            amounts.setdefault("neuron_cores", cores)
        return amounts

    def _start_resources(self, at: FieldPath) -> dict[str, int]:
        """Read the parameter `resources`: JSON, in quotes for the shell that starts Ray."""
        text = find(self.document, at)
        if text is None:
            return {}
        try:
            amounts = json.loads(text[1:-1].replace("\\", ""))
        except json.JSONDecodeError:
            amounts = None
        if not isinstance(amounts, dict) or not all(type(n) is int for n in amounts.values()):
            raise self.document.error_at(
                at,
                "must be JSON with whole numbers, in quotes of its own",
                got=text,
                hint="""for example resources: '"{\\"FPGA\\": 1}"', or the group's own """
                """resources: {FPGA: "1"} (KubeRay 1.5)""",
            )
        return amounts

    def _limit(self, key: str) -> int | None:
        """Return the limit of the container, or its request where it has no limit."""
        limit = quantity_at(self.document, (*self.container, "limits", key))
        return (
            quantity_at(self.document, (*self.container, "requests", key))
            if limit is None
            else limit
        )

    def _of_container(self, name: str) -> int | None:
        if name != "GPU":
            return self._limit({"CPU": "cpu"}.get(name, name))
        # As in Ray, any vendor's key will do: nvidia.com/gpu, amd.com/gpu …
        for kind in ("limits", "requests"):
            for key in mapping_at(self.document, (*self.container, kind)):
                amount = quantity_at(self.document, (*self.container, kind, key))
                if str(key).endswith("gpu") and amount:
                    return amount
        return None

    def _labels(self) -> tuple[dict[str, str], Declared]:
        """Read the labels that Ray sees, and what Kovar's labels and annotations declare."""
        labels: dict[str, str] = {}
        declared = Declared()
        notes = (*self.at, "template", "metadata", "annotations")
        if any(str(key).startswith(PREFIX) for key in mapping_at(self.document, notes)):
            declared = read_labels(self.document, notes)[1]
        at = (*self.at, "labels")
        if mapping_at(self.document, at):
            labels, own = read_labels(self.document, at)
            said = {key: value for key, value in vars(own).items() if value is not None}
            declared = replace(declared, **said)
        start = (*self.at, "rayStartParams", "labels")
        if (written := find(self.document, start)) is not None:
            raise self.document.error_at(
                start,
                "KubeRay refuses labels here",
                got=written,
                hint="move them to the group's own labels (KubeRay 1.5)",
            )
        return labels, declared

    def _gpu_types(
        self, selector: Mapping[str, str], amounts: Mapping[str, int]
    ) -> tuple[str, ...]:
        declared = [
            key.removeprefix(_ACCELERATOR) for key in amounts if key.startswith(_ACCELERATOR)
        ]
        detected = GKE_GPU_TYPES.get(selector.get(GKE_GPU, ""), ())[:1]
        if not self.grows:
            return tuple(dict.fromkeys((*declared, *detected)))
        if detected and detected[0] not in declared:
            self._warn(
                (*self.pod, "nodeSelector", GKE_GPU),
                f"the autoscaler starts no node of {self.name} for work that asks for "
                f"{detected[0]}: it does not read this; add to the group resources: "
                f'{{"{_ACCELERATOR}{detected[0]}": "1"}} (KubeRay 1.5)',
            )
        return tuple(declared)

    def _slice(self, selector: Mapping[str, str], amounts: Mapping[str, int]) -> _Slice | None:
        """Find the TPU slice of a group, and check that its other fields say the same."""
        if not amounts.get("TPU"):
            return None
        tpu = self._selected_slice(selector)
        chips, hosts = chips_per_host(tpu.topology), num_hosts(tpu.topology)
        if amounts["TPU"] != chips:
            raise self.document.error_at(
                (*self.container, "limits", "google.com/tpu"),
                f"a host of a {tpu.tpu_type} {tpu.topology} slice has {chips} chips",
                got=amounts["TPU"],
                hint=f'set it to "{chips}", or change the topology',
            )
        if self._num_hosts() != hosts:
            raise self.document.error_at(
                (*self.at, "numOfHosts"),
                f"a {tpu.tpu_type} {tpu.topology} slice has {hosts} hosts",
                got=self._num_hosts(),
                hint=f"set numOfHosts: {hosts}, or change the topology",
            )
        return tpu

    def _selected_slice(self, selector: Mapping[str, str]) -> _Slice:
        at: FieldPath = (*self.pod, "nodeSelector")
        tpu_type = GKE_TPU_TYPES.get(selector.get(GKE_TPU, ""))
        if tpu_type is None:
            raise self.document.error_at(
                (*at, GKE_TPU),
                "says which TPU this is, and is needed",
                got=selector.get(GKE_TPU),
                allowed=", ".join(GKE_TPU_TYPES),
                hint=did_you_mean(selector.get(GKE_TPU, ""), list(GKE_TPU_TYPES)),
            )
        topology = selector.get(GKE_TPU_TOPOLOGY, "")
        if topology not in TOPOLOGIES[tpu_type]:
            raise self.document.error_at(
                (*at, GKE_TPU_TOPOLOGY),
                f"not a topology of {tpu_type} slices",
                got=topology or None,
                allowed=", ".join(TOPOLOGIES[tpu_type][:8]) + " …",
            )
        return _Slice(tpu_type, topology)

    def _most(self, tpu: _Slice | None, amounts: Mapping[str, int]) -> int:
        """Return how many replicas there can be; of TPU slices only those that Ray can start."""
        if tpu is None or not self.grows:
            return self.num_max
        kept = f"the plan counts on the {self.num_min} that are always up"
        if num_hosts(tpu.topology) > 1:
            self._warn(
                (*self.at, "minReplicas"),
                "Ray reserves a slice of several hosts by labels that a group cannot declare, so "
                f"the autoscaler starts none for it: {kept}; raise minReplicas",
            )
            return self.num_min
        name = f"{_ACCELERATOR}{RAY_TPU_TYPES[tpu.tpu_type]}"
        if not amounts.get(name):
            self._warn(
                self.at,
                f"the autoscaler starts no slice of {self.name} for work that asks for it: {kept}; "
                f'add to the group resources: {{"{name}": "1"}} (KubeRay 1.5)',
            )
            return self.num_min
        return self.num_max

    def _num_hosts(self) -> int:
        return max(1, count_at(self.document, (*self.at, "numOfHosts"), default=1))

    def _warn(self, at: FieldPath, message: str) -> None:
        where = f"{self.document.path}:{self.document.line(at)}"
        logging.getLogger(__name__).warning("%s: %s", where, message)
