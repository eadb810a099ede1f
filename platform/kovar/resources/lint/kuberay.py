"""Rules for KubeRay manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import yaml

from kovar.config import FieldPath, format_size
from kovar.resources.accelerators import ACCELERATORS
from kovar.resources.cluster_file import ACCELERATOR_PREFIX
from kovar.resources.kubernetes import GKE_GPU, GKE_GPU_TYPES, GKE_TPU
from kovar.resources.lint.chips import nearest_accelerator
from kovar.resources.lint.exposure import PORTS
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.image import check_image
from kovar.resources.lint.machines import OFFERED_MEMORY
from kovar.resources.lint.manifest import Group, Manifest
from kovar.resources.tpu_slice import GKE_TPU_TYPES, RAY_TPU_TYPES

_PUBLIC_SERVICES: Final = ("LoadBalancer", "NodePort")
_SECRET_NAME = re.compile(r"(?i)(secret|token|password|api_?key|access_key)")


def check_manifest(manifest: Manifest, *, ray: str) -> Iterator[Finding]:
    """Report what is wrong or surprising in a manifest; `ray` is the version to run."""
    yield from _head(manifest)
    yield from _exposure(manifest)
    yield from _versions(manifest, ray)
    yield from _growth(manifest)
    for group in manifest.workers:
        yield from _limits(manifest, group)
        yield from _accelerator(manifest, group)
        yield from _slices(manifest, group)
        yield from _spot(manifest, group)
    for group, container in manifest.containers():
        yield from _requests(manifest, container)
        yield from _memory(manifest, group, container)
        yield from _environment(manifest, container)
    yield from _shared_folder(manifest)
    yield from _work(manifest)


def _head(manifest: Manifest) -> Iterator[Finding]:
    head = manifest.head
    path = head.at("rayStartParams", "num-cpus")
    offered = manifest.get(path)
    if str(offered) != "0" and head.resources.get("CPU") != 0:
        yield manifest.warning(
            path,
            "head-runs-work",
            "tasks run beside the cluster's state; one that takes the head's memory stops the "
            "cluster",
            fix='set num-cpus: "0" in rayStartParams',
        )
    for name in ("GPU", "TPU"):
        if head.amount(name):
            yield manifest.warning(
                (*head.container, "resources"),
                "head-accelerator",
                f"the head holds a {name} as long as the cluster is up",
                fix="remove it, and declare a worker group with it",
            )
    if head.spot:
        yield manifest.error(
            (*head.pod, "nodeSelector"),
            "head-spot",
            "the head is a Spot pod: taken away, it ends the cluster and its jobs",
            fix="select on-demand machines for the head",
        )


def _exposure(manifest: Manifest) -> Iterator[Finding]:
    head = manifest.head
    paths = (head.at("serviceType"), head.at("headService", "spec", "type"))
    for path in paths:
        if manifest.get(path) in _PUBLIC_SERVICES:
            yield manifest.error(
                path,
                "dashboard-open",
                f"{manifest.get(path)} makes the dashboard, the job server and Ray's own ports "
                "reachable from outside the Kubernetes cluster",
                fix="use ClusterIP, and `kubectl port-forward`",
            )
    if manifest.get(head.at("enableIngress")) is True:
        yield manifest.error(
            head.at("enableIngress"),
            "dashboard-open",
            "the ingress makes the dashboard and the job server reachable from outside",
            fix="remove it, and use `kubectl port-forward`",
        )
    if manifest.get((*manifest.at, "authOptions", "mode")) == "disabled":
        yield manifest.error(
            (*manifest.at, "authOptions", "mode"),
            "auth-disabled",
            "requests need no token: every pod that reaches a port can run code",
            fix="set mode: token",
        )
    for group, container in manifest.containers():
        if manifest.get((*group.pod, "hostNetwork")) is True and container[-1] == 0:
            yield manifest.error(
                (*group.pod, "hostNetwork"),
                "port-open",
                "Ray's ports are those of the machine, for everyone who reaches it",
                fix="remove hostNetwork",
            )
        for index, port in enumerate(manifest.items((*container, "ports"))):
            if isinstance(port, Mapping) and port.get("hostPort") in PORTS:
                yield manifest.error(
                    (*container, "ports", index, "hostPort"),
                    "port-open",
                    f"port {port['hostPort']} ({PORTS[port['hostPort']]}) is one of the machine",
                    fix="remove hostPort",
                )


def _versions(manifest: Manifest, ray: str) -> Iterator[Finding]:
    declared = manifest.get((*manifest.at, "rayVersion"))
    if declared is not None and str(declared) != ray:
        yield manifest.error(
            (*manifest.at, "rayVersion"),
            "ray-version",
            f"Ray {declared} is declared; Kovar is tested with {ray}",
            fix=f"set rayVersion: {ray}, and the same in every image",
        )
    images: dict[str, FieldPath] = {}
    on_gpus = set()
    for group, container in manifest.containers():
        path = (*container, "image")
        image = str(manifest.get(path) or "")
        images.setdefault(image, path)
        if group.amount("GPU") and container == group.container:
            on_gpus.add(image)
    for image, path in images.items():
        yield from check_image(manifest, path, image, ray=ray, needs_gpu=image in on_gpus)


def _growth(manifest: Manifest) -> Iterator[Finding]:
    switch = (*manifest.at, "enableInTreeAutoscaling")
    grows = manifest.get(switch) is True
    growing = [
        group
        for group in manifest.workers
        if (manifest.number(group.at("maxReplicas")) or 0)
        > (manifest.number(group.at("minReplicas")) or 0)
    ]
    if growing and not grows:
        yield manifest.warning(
            switch,
            "autoscaling",
            f"without the autoscaler {growing[0].name} never grows from minReplicas to maxReplicas",
            fix="set enableInTreeAutoscaling: true",
        )
    if manifest.get((*manifest.at, "autoscalerOptions", "version")) == "v1":
        yield manifest.warning(
            (*manifest.at, "autoscalerOptions", "version"),
            "autoscaler-v1",
            "the first autoscaler does not read label selectors: work that has one waits",
            fix="set version: v2",
        )
    idle = manifest.number((*manifest.at, "autoscalerOptions", "idleTimeoutSeconds"))
    chips = [group for group in manifest.workers if group.amount("GPU") or group.amount("TPU")]
    if idle is not None and (idle == 0 or (idle > 1800 and chips)):
        problem = (
            f"an idle {chips[0].name} pod holds its accelerator for {idle / 60:,.0f} minutes"
            if idle
            else "a pod stops in the moment that it is idle, also between two steps of one job"
        )
        yield manifest.warning(
            (*manifest.at, "autoscalerOptions", "idleTimeoutSeconds"),
            "idle-timeout",
            problem,
            fix="use 300 seconds",
        )


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


def _requests(manifest: Manifest, container: FieldPath) -> Iterator[Finding]:
    """Kubernetes takes equal requests and limits of devices, and no request above its limit."""
    resources = (*container, "resources")
    keys = {
        key: kind for kind in ("limits", "requests") for key in manifest.mapping((*resources, kind))
    }
    for key in keys:
        limit = manifest.quantity((*resources, "limits", key))
        request = manifest.quantity((*resources, "requests", key))
        is_device = "/" in str(key)
        if is_device and request is not None and request != limit:
            yield manifest.error(
                (*resources, "requests", key),
                "device-requests",
                f"{request} × {key} are requested, the limit is "
                f"{'missing' if limit is None else limit}: Kubernetes wants them equal",
                fix="write the same number under requests and limits",
            )
        elif limit is not None and request is not None and request > limit:
            yield manifest.error(
                (*resources, "requests", key),
                "requests-over-limits",
                f"the request of {key} is above its limit",
                fix="write the same amount under requests and limits",
            )


def _memory(manifest: Manifest, group: Group, container: FieldPath) -> Iterator[Finding]:
    if container != group.container:
        return
    offered = manifest.quantity(group.at("resources", "memory"))
    limit = manifest.quantity((*container, "resources", "limits", "memory"))
    if offered is None or limit is None or offered <= OFFERED_MEMORY * limit:
        return
    sensible = int(limit * 0.7) >> 30
    message = f"{format_size(offered)} of memory are offered to work, the pod has "
    build = manifest.error if offered > limit else manifest.warning
    yield build(
        group.at("resources", "memory"),
        "machine-memory",
        message
        + format_size(limit)
        + ("" if offered > limit else ": no room for Ray's object store"),
        fix=f"set memory: {sensible}Gi (70 %)",
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


def _spot(manifest: Manifest, group: Group) -> Iterator[Finding]:
    told = group.labels.get("kovar.dev/spot")
    if told in ("true", "false") and (told == "true") != group.spot:
        yield manifest.error(
            group.at("labels", "kovar.dev/spot"),
            "spot-label",
            f"the label says {told}, nodeSelector asks for "
            + ("Spot machines" if group.spot else "on-demand machines"),
            fix=f'set kovar.dev/spot: "{str(group.spot).lower()}", or change nodeSelector',
        )


def _environment(manifest: Manifest, container: FieldPath) -> Iterator[Finding]:
    for name, (path, value) in manifest.environment(container).items():
        if _SECRET_NAME.search(name) and isinstance(value, str) and len(value) >= 8:
            yield manifest.error(
                path,
                "secret",
                f"{name} is written into the manifest: whoever reads the file has it",
                fix="revoke it, and take it from a Secret: valueFrom: {secretKeyRef: …}",
            )
        if name == "KOVAR_DATABASE_URL" and str(value).startswith("sqlite"):
            yield manifest.error(
                path,
                "sqlite-on-share",
                "each pod would have a database of its own, or all would spoil one: SQLite cannot "
                "be shared",
                fix="use PostgreSQL, its URL in a Secret",
            )
        if name == "RAY_AUTH_MODE" and value == "disabled":
            yield manifest.error(
                path, "auth-disabled", "requests need no token", fix="use RAY_AUTH_MODE=token"
            )


def _shared_folder(manifest: Manifest) -> Iterator[Finding]:
    homes: dict[str, tuple[FieldPath, str]] = {}
    for group in manifest.node_types:
        found = manifest.environment(group.container).get("KOVAR_HOME")
        mounts = [
            str(mount.get("mountPath"))
            for mount in manifest.items((*group.container, "volumeMounts"))
            if isinstance(mount, Mapping)
        ]
        if found is None:
            continue
        path, home = found[0], str(found[1])
        homes.setdefault(home, (path, group.name))
        if not any(home == mount or home.startswith(f"{mount}/") for mount in mounts):
            yield manifest.error(
                path,
                "kovar-home",
                f"{group.name} mounts nothing at KOVAR_HOME={home}: its files end with the pod",
                fix="mount the shared volume there",
            )
    for home, (path, name) in list(homes.items())[1:]:
        yield manifest.error(
            path,
            "kovar-home",
            f"{name} uses KOVAR_HOME={home}, the head {next(iter(homes))}: they share no runs",
            fix="use the same folder in every group",
        )


def _work(manifest: Manifest) -> Iterator[Finding]:
    kind = manifest.get(("kind",))
    if kind == "RayJob":
        if not manifest.get(("spec", "entrypoint")):
            yield manifest.error(
                ("spec", "entrypoint"),
                "entrypoint",
                "the job has no command",
                fix="add entrypoint: python jobs/finetune.py jobs/movie-sentiment.yaml",
            )
        if manifest.get(("spec", "shutdownAfterJobFinishes")) is not True:
            yield manifest.warning(
                ("spec", "shutdownAfterJobFinishes"),
                "job-cluster",
                "the cluster stays up, and is billed, after the job has ended",
                fix="set shutdownAfterJobFinishes: true",
            )
    text = manifest.get(("spec", "serveConfigV2"))
    if kind == "RayService" and isinstance(text, str):
        try:
            yaml.safe_load(text)
        except yaml.YAMLError as problem:
            yield manifest.error(
                ("spec", "serveConfigV2"),
                "serve-config",
                f"not valid YAML: {getattr(problem, 'problem', None) or 'unreadable'}",
                fix="check its indentation; `kovar plan` reads the same text in a file of its own",
            )
