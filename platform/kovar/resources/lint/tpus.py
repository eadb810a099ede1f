"""TPU slices on Google Cloud."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.node import NodeDeclaration
from kovar.resources.tpu_slice import (
    GOOGLE_TPU_TYPES,
    RAY_TPU_TYPES,
    TOPOLOGIES,
    TpuType,
    chips_per_host,
    num_cores_per_chip,
    num_hosts,
    topology_of,
)

_HEAD_RESOURCE = re.compile(r"TPU-.+-head")
_RUNTIME = re.compile(r"tpu-?(v\d+[a-z]*(?:-lite)?|7x)")
_RUNTIME_TYPES: Final[Mapping[str, TpuType]] = {
    "v4": "v4", "v5": "v5p", "v5-lite": "v5e", "v6e": "v6e", "7x": "v7x",
}  # fmt: skip


def is_slice(config: Mapping[str, Any]) -> bool:
    """Whether a node's settings ask for a TPU slice."""
    return bool({"acceleratorType", "acceleratorConfig"} & config.keys())


def slice_of(config: Mapping[str, Any]) -> tuple[TpuType, str] | None:
    """Return generation and topology of the slice that a node's settings ask for."""
    declared = config.get("acceleratorConfig")
    if isinstance(declared, Mapping):
        tpu_type = GOOGLE_TPU_TYPES.get(str(declared.get("type")).lower())
        topology = str(declared.get("topology"))
        return (tpu_type, topology) if tpu_type and topology in TOPOLOGIES[tpu_type] else None
    name, _, cores = str(config.get("acceleratorType")).partition("-")
    tpu_type = GOOGLE_TPU_TYPES.get(name)
    if tpu_type is None or not cores.isdigit():
        return None
    found = topology_of(tpu_type, int(cores) // num_cores_per_chip(tpu_type))
    return (tpu_type, found) if found else None


def check_tpus(cluster: ClusterYaml) -> Iterator[Finding]:
    """Report TPU node types that Google Cloud, Ray or a job would trip over."""
    for kind in cluster.node_types:
        yield from _head_resources(cluster, kind)
        keys = [key for key in ("acceleratorType", "acceleratorConfig") if key in kind.config]
        if not keys:
            continue
        if "machineType" in kind.config:
            yield cluster.error(
                kind.at("node_config", "machineType"),
                "tpu-machine-type",
                f"next to {keys[0]} this makes an ordinary machine: a TPU node has no machineType",
                fix="remove machineType",
            )
            continue
        if len(keys) == 2:
            yield cluster.error(
                kind.at("node_config", "acceleratorConfig"),
                "tpu-slice",
                "Ray refuses acceleratorType and acceleratorConfig together",
                fix="keep one of them",
            )
        found = slice_of(kind.config)
        if found is not None and not kind.is_head:
            yield from _resources(cluster, kind, *found)
            if cluster.is_simulated:
                continue
            yield from _runtime(cluster, kind, found[0])
            yield from _hosts(cluster, kind, keys[0], *found)


def _head_resources(cluster: ClusterYaml, kind: NodeDeclaration) -> Iterator[Finding]:
    for key in kind.resources:
        if _HEAD_RESOURCE.fullmatch(key):
            yield cluster.error(
                kind.at("resources", key),
                "tpu-head-resource",
                "Ray adds the head resource of a slice by itself, to its first host alone",
                fix="remove it",
            )


def _resources(
    cluster: ClusterYaml, kind: NodeDeclaration, tpu_type: TpuType, topology: str
) -> Iterator[Finding]:
    expected = {
        "TPU": chips_per_host(topology),
        f"accelerator_type:{RAY_TPU_TYPES[tpu_type]}": 1,
    }
    wrong = {
        key: amount
        for key, amount in kind.resources.items()
        if key.startswith("accelerator_type:") and key not in expected
    }
    for key in wrong:
        yield cluster.error(
            kind.at("resources", key),
            "tpu-resources",
            f"a {tpu_type} {topology} slice is not a {key.partition(':')[2]}",
            fix=f'declare "accelerator_type:{RAY_TPU_TYPES[tpu_type]}": 1',
        )
    for key, amount in expected.items():
        if kind.resources.get(key) != amount and not (wrong and key != "TPU"):
            yield cluster.error(
                kind.at("resources", key) if key in kind.resources else kind.at("resources"),
                "tpu-resources",
                f"a host of a {tpu_type} {topology} slice has {key}: {amount}, not "
                f"{kind.resources.get(key, 'nothing')}; the autoscaler would never start one",
                fix=f'set "{key}": {amount}',
            )


def _runtime(cluster: ClusterYaml, kind: NodeDeclaration, tpu_type: TpuType) -> Iterator[Finding]:
    version = kind.config.get("runtimeVersion")
    path = kind.at("node_config", "runtimeVersion")
    if not version:
        yield cluster.error(
            path,
            "tpu-runtime",
            "a TPU node needs runtimeVersion: the image of its hosts",
            fix="add it, for example v2-alpha-tpuv6e",
        )
        return
    match = _RUNTIME.search(str(version))
    meant = _RUNTIME_TYPES.get(match[1]) if match else None
    if meant is not None and meant != tpu_type:
        yield cluster.error(
            path,
            "tpu-runtime",
            f"{version} is the image of TPU {meant}, the slice is {tpu_type}",
            fix=f"take the image of {tpu_type}: https://cloud.google.com/tpu/docs/runtimes",
        )


def _hosts(
    cluster: ClusterYaml, kind: NodeDeclaration, key: str, tpu_type: TpuType, topology: str
) -> Iterator[Finding]:
    hosts = num_hosts(topology)
    if hosts > 1:
        yield cluster.warning(
            kind.at("node_config", key),
            "tpu-hosts",
            f"a {tpu_type} {topology} slice has {hosts} hosts, which must start and stop as one; "
            "`ray up` does not do that",
            fix="use a slice of one host here, and KubeRay for larger ones",
        )
