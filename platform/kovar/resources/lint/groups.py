"""Rules for the groups of workers of a KubeRay manifest."""

from __future__ import annotations

from collections.abc import Iterator

from kovar.resources.accelerators import ACCELERATORS
from kovar.resources.cluster_file import ACCELERATOR_PREFIX
from kovar.resources.declaration import SPOT_LABEL
from kovar.resources.kubernetes import GKE_GPU, GKE_GPU_TYPES, GKE_TPU
from kovar.resources.lint.chips import nearest_accelerator
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.manifest import Group, Manifest
from kovar.resources.tpu_slice import GKE_TPU_TYPES, RAY_TPU_TYPES


def check_group(manifest: Manifest, group: Group) -> Iterator[Finding]:
    """Report limits, chips and labels of a group that contradict each other."""
    yield from _limits(manifest, group)
    yield from _accelerator(manifest, group)
    yield from _slices(manifest, group)
    yield from _spot(manifest, group)


def _limits(manifest: Manifest, group: Group) -> Iterator[Finding]:
    least = manifest.number(group.at("minReplicas")) or 0
    most = manifest.number(group.at("maxReplicas"))
    wanted = manifest.number(group.at("replicas"))
    if most is None and not manifest.has(group.at("maxReplicas")):
        yield manifest.warning(
            group.at("maxReplicas"),
            "missing-max-workers",
            f"{group.name} has no maxReplicas: KubeRay takes 2,147,483,647",
            fix="add maxReplicas: the most pods of this group that you would pay for",
        )
        return
    if most is not None and 0 <= most < least:
        yield manifest.error(
            group.at("minReplicas"),
            "min-over-max",
            f"minReplicas {least:g} is larger than maxReplicas {most:g}",
            fix=f"set minReplicas to at most {most:g}, or raise maxReplicas to {least:g}",
        )
    elif most is not None and wanted is not None and not least <= wanted <= most:
        yield manifest.error(
            group.at("replicas"),
            "min-over-max",
            f"replicas {wanted:g} is not between minReplicas {least:g} and maxReplicas {most:g}",
            fix=f"set replicas to {least:g}, or remove it",
        )


def _accelerator(manifest: Manifest, group: Group) -> Iterator[Finding]:
    """The autoscaler reads the group's resources, Kubernetes reads the node selector."""
    tpu = GKE_TPU_TYPES.get(group.selector.get(GKE_TPU, ""))
    selected = (RAY_TPU_TYPES[tpu],) if tpu else GKE_GPU_TYPES.get(group.selector.get(GKE_GPU, ""))
    for key in group.resources:
        name = key.removeprefix(ACCELERATOR_PREFIX)
        misspelled = name not in ACCELERATORS and nearest_accelerator(name)
        if selected and name != key and name not in selected and not misspelled:
            yield manifest.error(
                group.at("resources", key),
                "machine-accelerator-type",
                f"nodeSelector asks for {selected[0]}, not {name}",
                fix=f'declare "{ACCELERATOR_PREFIX}{selected[0]}": "1", or change nodeSelector',
            )
    declared = any(key.startswith(ACCELERATOR_PREFIX) for key in group.resources)
    if group.amount("TPU") and tpu and not declared:
        yield manifest.error(
            group.at("resources"),
            "gpu-without-type",
            "no accelerator_type is declared: work that asks for this TPU starts no pod",
            fix=f'add "{ACCELERATOR_PREFIX}{RAY_TPU_TYPES[tpu]}": "1"',
        )
    if any(
        key.startswith("cloud.google.com/gke-") and "accelerator" in key for key in (group.selector)
    ) and not (group.amount("GPU") or group.amount("TPU")):
        yield manifest.error(
            (*group.container, "resources", "limits"),
            "machine-accelerators",
            "nodeSelector asks for machines with accelerators, and the container takes none",
            fix='add nvidia.com/gpu: "1" (or google.com/tpu) to requests and limits',
        )


def _slices(manifest: Manifest, group: Group) -> Iterator[Finding]:
    hosts = manifest.number(group.at("numOfHosts")) or 1
    least = manifest.number(group.at("minReplicas")) or 0
    most = manifest.number(group.at("maxReplicas")) or 0
    if hosts > 1 and most > least and group.amount("TPU"):
        yield manifest.warning(
            group.at("maxReplicas"),
            "tpu-hosts",
            "Ray reserves a slice of several hosts by labels that only its running hosts have, so "
            "the autoscaler starts none for a job",
            fix="set minReplicas and maxReplicas to the same number while you need the slices",
        )


def _spot(manifest: Manifest, group: Group) -> Iterator[Finding]:
    told = group.labels.get(SPOT_LABEL)
    if told in ("true", "false") and (told == "true") != group.spot:
        yield manifest.error(
            group.at("labels", SPOT_LABEL),
            "spot-label",
            f"the label says {told}, nodeSelector asks for "
            + ("Spot machines" if group.spot else "on-demand machines"),
            fix=f'set {SPOT_LABEL}: "{str(group.spot).lower()}", or change nodeSelector',
        )
