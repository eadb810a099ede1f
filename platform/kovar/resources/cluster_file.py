"""Reading node types from Ray's cluster.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from kovar.config import Document, FieldPath
from kovar.errors import did_you_mean
from kovar.resources.accelerators import accelerator_memory, interconnect_of
from kovar.resources.cluster import Cluster
from kovar.resources.declaration import Declared, disk_of, is_spot, read_labels
from kovar.resources.node_type import NodeType
from kovar.resources.tpu_slice import (
    GOOGLE_TPU_TYPES,
    RAY_TPU_TYPES,
    TOPOLOGIES,
    TpuType,
    chips_per_host,
    num_cores_per_chip,
    topology_of,
)

RAY_RESOURCES: Final = ("CPU", "GPU", "TPU", "memory", "object_store_memory")
ACCELERATOR_PREFIX: Final = "accelerator_type:"
MOST: Final = 100 * 10**12
"""Ray's own MAX_RESOURCE_QUANTITY."""

NumberT = TypeVar("NumberT", int, float)


def read_cluster_file(document: Document) -> Cluster:
    """Read a Ray `cluster.yaml`; its node types keep the order of the file.

    Only declared facts count: Ray fills in resources for some providers when it launches, but a
    plan must be checkable without the cloud.

    Raises:
        SpecError: the file, or a field of it, with its line.
    """
    root = _mapping(document, ())
    declared = _mapping(document, ("available_node_types",))
    if not declared:
        raise document.error_at("available_node_types", "no node type is declared")
    head = _value(document, ("head_node_type",))
    if not isinstance(head, str) or head not in declared:
        raise document.error_at(
            "head_node_type",
            "not one of available_node_types",
            got=head,
            allowed=", ".join(map(str, declared)),
            hint=did_you_mean(str(head), list(map(str, declared))),
        )
    if "max_workers" not in root:
        raise document.error_at(
            "max_workers",
            "this key is required",
            hint="add max_workers: the most worker nodes of all types together",
        )
    max_workers = _count(document, ("max_workers",), default=0)
    idle = _number(document, ("idle_timeout_minutes",), default=5.0)
    return Cluster(
        tuple(
            _node_type(document, str(name), is_head=name == head, max_workers=max_workers)
            for name in declared
        ),
        max_workers=max_workers,
        idle_timeout_s=idle * 60,
        origin=document.path.name if document.path else "the cluster",
    )


def _node_type(document: Document, name: str, *, is_head: bool, max_workers: int) -> NodeType:
    here: FieldPath = ("available_node_types", name)
    _mapping(document, here)
    resources = _mapping(document, (*here, "resources"))
    amounts = {
        str(key): _amount(document, (*here, "resources", key), whole=str(key) in RAY_RESOURCES)
        for key in resources
    }
    if "CPU" not in amounts:
        raise document.error_at(
            (*here, "resources"), "CPU is missing", hint="add CPU: the number of logical CPUs"
        )
    least = _count(document, (*here, "min_workers"), default=0)
    most = _count(document, (*here, "max_workers"), default=0 if is_head else max_workers)
    if least > most:
        raise document.error_at(
            (*here, "min_workers"), "larger than max_workers", got=least, allowed=f"at most {most}"
        )
    tpu_type, topology = _tpu_slice(document, here, amounts)
    accelerators = tuple(
        key.removeprefix(ACCELERATOR_PREFIX)
        for key in amounts
        if key.startswith(ACCELERATOR_PREFIX)
    )
    labels: dict[str, str] = {}
    declared = Declared()
    if _has(document, (*here, "labels")):
        _mapping(document, (*here, "labels"))
        labels, declared = read_labels(document, (*here, "labels"))
    config = document.data["available_node_types"][name].get("node_config") or {}
    gpu_types = accelerators if amounts.get("GPU") else ()
    chips = (tpu_type,) if tpu_type else gpu_types
    # The head is up as long as the cluster is, and is not counted among the workers.
    head = 1 if is_head else 0
    return NodeType(
        name=name,
        cpus=amounts["CPU"],
        memory_bytes=int(amounts["memory"]) if "memory" in amounts else None,
        gpu_types=gpu_types,
        num_gpus=int(amounts.get("GPU", 0)),
        accelerator_memory_bytes=declared.gpu_memory_bytes or accelerator_memory(chips),
        tpu_type=tpu_type,
        tpu_topology=topology,
        num_tpu_chips=int(amounts.get("TPU", 0)),
        min_count=least + head,
        max_count=min(most, max_workers) + head,
        is_head=is_head,
        disk_bytes=declared.disk_bytes or disk_of(config),
        custom_resources={
            key: amount
            for key, amount in amounts.items()
            if key not in RAY_RESOURCES and not key.startswith(ACCELERATOR_PREFIX)
        },
        interconnect=declared.interconnect or interconnect_of(chips),
        price_per_hour=declared.price_per_hour,
        spot=is_spot(config) if declared.spot is None else declared.spot,
        labels=labels,
    )


def _tpu_slice(
    document: Document, here: FieldPath, amounts: Mapping[str, float]
) -> tuple[TpuType | None, str | None]:
    """Find the TPU slice of a node type, and check that its resources say the same."""
    config = document.data["available_node_types"][here[-1]].get("node_config") or {}
    if not isinstance(config, Mapping):
        raise document.error_at((*here, "node_config"), "must be a mapping", got=config)
    if "machineType" in config or not {"acceleratorType", "acceleratorConfig"} & config.keys():
        if "TPU" in amounts:
            raise document.error_at(
                (*here, "resources", "TPU"),
                "a TPU needs acceleratorConfig or acceleratorType, and no machineType, "
                "in node_config",
                hint="for example acceleratorConfig: {type: V6E, topology: 2x4}",
            )
        return None, None
    tpu_type, topology, key = _declared_slice(document, (*here, "node_config"), config)
    expected = {
        "TPU": chips_per_host(topology),
        f"{ACCELERATOR_PREFIX}{RAY_TPU_TYPES[tpu_type]}": 1,
    }
    for name, amount in expected.items():
        if amounts.get(name) != amount:
            raise document.error_at(
                (*here, "resources", name),
                f"a host of a {tpu_type} {topology} slice has {name}: {amount}; with anything "
                "else the autoscaler never starts one",
                got=str(amounts.get(name, "nothing")),
                hint=f"set {name!r}: {amount}, or change {key} in node_config",
            )
    return tpu_type, topology


def _declared_slice(
    document: Document, here: FieldPath, config: Mapping[str, Any]
) -> tuple[TpuType, str, str]:
    """Read the TPU generation and topology from Google Cloud's two ways to write them."""
    if "acceleratorConfig" in config:
        key = "acceleratorConfig"
        declared = _mapping(document, (*here, key))
        cloud_type, topology = str(declared.get("type")).lower(), str(declared.get("topology"))
        tpu_type = GOOGLE_TPU_TYPES.get(cloud_type)
        if tpu_type and topology in TOPOLOGIES[tpu_type]:
            return tpu_type, topology, key
        allowed = (
            "type: V4, V5P, V5LITE_POD, V6E or TPU7X, and a topology that it is sold in, "
            "such as 2x4"
        )
    else:
        key = "acceleratorType"
        cloud_type, _, cores = str(config[key]).partition("-")
        tpu_type = GOOGLE_TPU_TYPES.get(cloud_type)
        if tpu_type and cores.isdigit():
            found = topology_of(tpu_type, int(cores) // num_cores_per_chip(tpu_type))
            if found:
                return tpu_type, found, key
        allowed = "for example v5litepod-8, v6e-8, v4-8 or tpu7x-8"
    raise document.error_at(
        (*here, key), "not a TPU slice that is known here", got=config[key], allowed=allowed
    )


def _value(document: Document, path: FieldPath) -> Any:
    value = document.data
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            raise document.error_at(path, "this key is required", hint="add it")
        value = value[part]
    return value


def _has(document: Document, path: FieldPath) -> bool:
    return path[-1] in _value(document, path[:-1])


def _mapping(document: Document, path: FieldPath) -> Mapping[str, Any]:
    value = _value(document, path)
    if not isinstance(value, Mapping):
        raise document.error_at(path, "must be a mapping (key: value lines)", got=value)
    return value


def _amount(document: Document, path: FieldPath, *, whole: bool) -> float:
    return _count(document, path, default=0) if whole else _number(document, path, default=0.0)


def _number(document: Document, path: FieldPath, *, default: float) -> float:
    if not _has(document, path):
        return default
    value = _value(document, path)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise document.error_at(path, "must be a number, 0 or more", got=value)
    return _checked(document, path, value)


def _count(document: Document, path: FieldPath, *, default: int) -> int:
    if not _has(document, path):
        return default
    value = _value(document, path)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise document.error_at(path, "must be a whole number, 0 or more", got=value)
    return _checked(document, path, value)


def _checked(document: Document, path: FieldPath, value: NumberT) -> NumberT:
    """Return a number that Ray can count; neither infinity nor NaN is one."""
    if not value <= MOST:
        raise document.error_at(path, "Ray counts no further", got=value, allowed=f"at most {MOST}")
    return value
