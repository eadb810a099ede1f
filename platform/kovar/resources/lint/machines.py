"""Declared resources against what the machine type really has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from kovar.config import format_size
from kovar.resources.accelerators import ACCELERATORS
from kovar.resources.lint.chips import nearest_accelerator
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.node import NodeDeclaration
from kovar.resources.lint.tpus import is_slice, slice_of
from kovar.resources.machine_types import (
    MachineType,
    attached_gpu_types,
    machine_type,
    misspelled,
    tpu_host,
)
from kovar.resources.tpu_slice import chips_per_host

OFFERED_MEMORY: Final = 0.8
"""Largest share of a machine's memory that tasks can use: Ray's object store takes 30 % by default,
and the system needs some."""

_TYPE_KEYS: Final = {"aws": "InstanceType", "gcp": "machineType"}
_LEAST_MEMORY: Final = 64 << 20


def check_machines(cluster: ClusterYaml) -> Iterator[Finding]:
    """Report CPUs, memory and accelerators that the declared machine does not have."""
    for kind in cluster.node_types:
        yield from _memory_unit(cluster, kind)
        if cluster.cloud is None:
            continue
        yield from _machine_name(cluster, kind)
        machine = _machine(cluster, kind)
        if machine is not None:
            yield from _cpus(cluster, kind, machine)
            yield from _memory(cluster, kind, machine)
            if machine.resource != "TPU":
                yield from _accelerators(cluster, kind, machine)


def _machine(cluster: ClusterYaml, kind: NodeDeclaration) -> MachineType | None:
    """Find what the node's machine has, attached cards included."""
    if cluster.cloud is None:
        return None
    name = kind.config.get(_TYPE_KEYS[cluster.cloud])
    tpu = cluster.cloud == "gcp" and is_slice(kind.config)
    if not isinstance(name, str) or tpu:
        found = slice_of(kind.config) if tpu and name is None else None
        return tpu_host(found[0], chips_per_host(found[1])) if found else None
    machine = machine_type(cluster.cloud, name.rpartition("/")[2])
    cards = kind.config.get("guestAccelerators")
    if machine is None or not machine.accepts_gpus or not isinstance(cards, list):
        return machine
    for card in cards:
        if isinstance(card, dict):
            types = attached_gpu_types(str(card.get("acceleratorType")))
            count = card.get("acceleratorCount")
            if not types or not isinstance(count, int):
                return None
            machine = replace(
                machine, resource="GPU", accelerator_types=types, num_accelerators=count
            )
    return machine


def _machine_name(cluster: ClusterYaml, kind: NodeDeclaration) -> Iterator[Finding]:
    cloud = cluster.cloud
    if cloud is None:
        return
    key = _TYPE_KEYS[cloud]
    name = kind.config.get(key)
    if name is None and not (cloud == "gcp" and is_slice(kind.config)):
        yield cluster.error(
            kind.at("node_config", key),
            "machine-type",
            f"no machine is named: on {cloud.upper()} node_config needs {key}",
            fix=f"add {key}, for example " + ("n2-standard-8" if cloud == "gcp" else "m7i.2xlarge"),
        )
    elif isinstance(name, str) and (hint := misspelled(cloud, name.rpartition("/")[2])):
        yield cluster.error(
            kind.at("node_config", key),
            "machine-type",
            f"{name} is not a size of its family",
            fix=hint,
        )


def _cpus(cluster: ClusterYaml, kind: NodeDeclaration, machine: MachineType) -> Iterator[Finding]:
    declared = kind.amount("CPU")
    if declared > machine.cpus:
        yield cluster.error(
            kind.at("resources", "CPU"),
            "machine-cpus",
            f"{declared:g} CPUs are declared, a {machine.name} has {machine.cpus}",
            fix=f'set "CPU": {machine.cpus}',
        )
    elif 0 < declared < machine.cpus / 2 and not kind.is_head:
        yield cluster.warning(
            kind.at("resources", "CPU"),
            "machine-cpus",
            f"{declared:g} of the {machine.cpus} CPUs of a {machine.name} are on offer",
            fix=f'set "CPU": {machine.cpus}, or take a smaller machine',
        )


def _memory_unit(cluster: ClusterYaml, kind: NodeDeclaration) -> Iterator[Finding]:
    declared = kind.resources.get("memory")
    if declared is not None and declared < _LEAST_MEMORY:
        yield cluster.error(
            kind.at("resources", "memory"),
            "machine-memory",
            f"memory is in bytes: {declared:g} is {format_size(declared)}",
            fix=f"for {declared:g} GiB write {int(declared) << 30}",
        )


def _memory(cluster: ClusterYaml, kind: NodeDeclaration, machine: MachineType) -> Iterator[Finding]:
    declared = kind.amount("memory")
    sensible = int(machine.memory_bytes * 0.7) >> 30 << 30
    fix = f'set "memory": {sensible} ({format_size(sensible)}, 70 %)'
    has = f"a {machine.name} has {format_size(machine.memory_bytes)}"
    if declared > machine.memory_bytes:
        yield cluster.error(
            kind.at("resources", "memory"),
            "machine-memory",
            f"{format_size(declared)} of memory are declared, {has}",
            fix=fix,
        )
    elif declared > OFFERED_MEMORY * machine.memory_bytes:
        yield cluster.warning(
            kind.at("resources", "memory"),
            "machine-memory",
            f"{format_size(declared)} of memory leave no room for Ray's object store: {has}",
            fix=fix,
        )


def _accelerators(
    cluster: ClusterYaml, kind: NodeDeclaration, machine: MachineType
) -> Iterator[Finding]:
    for resource in ("GPU", "neuron_cores", "TPU"):
        has = machine.num_accelerators if machine.resource == resource else 0
        declared = kind.amount(resource)
        if resource == "TPU" and declared:
            continue
        what = f"{has} × {machine.accelerator_types[0]}" if has else f"no {resource}"
        if declared > has:
            yield cluster.error(
                kind.at("resources", resource),
                "machine-accelerators",
                f"{resource}: {declared:g} is declared, a {machine.name} has {what}",
                fix=f'set "{resource}": {has}'
                if has
                else f"remove {resource}, or take a machine that has one",
            )
        elif declared < has and not kind.is_head:
            yield cluster.error(
                kind.at("resources", resource) if declared else kind.at("resources"),
                "machine-accelerators",
                f"a {machine.name} has {what}, and {declared:g} are declared: the rest is "
                "billed and never used",
                fix=f'set "{resource}": {has}',
            )
    yield from _accelerator_types(cluster, kind, machine)
    yield from _maintenance(cluster, kind, machine)


def _accelerator_types(
    cluster: ClusterYaml, kind: NodeDeclaration, machine: MachineType
) -> Iterator[Finding]:
    for key in kind.resources:
        prefix, _, name = key.partition(":")
        if prefix != "accelerator_type" or name in machine.accelerator_types:
            continue
        if name not in ACCELERATORS and nearest_accelerator(name):
            continue  # misspelled, which is told elsewhere
        right = " and ".join(f"accelerator_type:{one}" for one in machine.accelerator_types)
        yield cluster.error(
            kind.at("resources", key),
            "machine-accelerator-type",
            f"a {machine.name} has "
            + (f"{machine.accelerator_types[0]}, not {name}" if right else f"no {name}"),
            fix=f"declare {right}" if right else f"remove {key}, or take a machine that has it",
        )


def _maintenance(
    cluster: ClusterYaml, kind: NodeDeclaration, machine: MachineType
) -> Iterator[Finding]:
    """Google Cloud refuses to start a GPU machine that it may move while it runs."""
    if cluster.cloud != "gcp" or machine.resource != "GPU" or kind.spot:
        return
    # Ray's own examples write these settings as a list.
    scheduling = kind.config.get("scheduling")
    groups = scheduling if isinstance(scheduling, list) else [scheduling]
    policies = [
        str(one.get("onHostMaintenance")).upper() for one in groups if isinstance(one, dict)
    ]
    if "TERMINATE" not in policies:
        yield cluster.error(
            kind.at("node_config", "scheduling", "onHostMaintenance"),
            "gpu-maintenance",
            "Google Cloud starts a GPU machine only when maintenance may terminate it",
            fix="add scheduling: { onHostMaintenance: TERMINATE } to node_config",
        )
