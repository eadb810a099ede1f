"""Rules for a KubeRay manifest as a whole: its head, who reaches it, versions, growth, work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import yaml

from kovar.config import FieldPath
from kovar.resources.lint.containers import check_container, check_shared_folder
from kovar.resources.lint.exposure import PORTS
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.groups import check_group
from kovar.resources.lint.image import check_image
from kovar.resources.lint.manifest import Manifest

_PUBLIC_SERVICES: Final = ("LoadBalancer", "NodePort")


def check_manifest(manifest: Manifest, *, ray: str) -> Iterator[Finding]:
    """Report what is wrong or surprising in a manifest; `ray` is the version to run."""
    yield from _head(manifest)
    yield from _exposure(manifest)
    yield from _versions(manifest, ray)
    yield from _growth(manifest)
    for group in manifest.workers:
        yield from check_group(manifest, group)
    for group, container in manifest.containers():
        yield from check_container(manifest, group, container)
    yield from check_shared_folder(manifest)
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
            number = port.get("hostPort") if isinstance(port, Mapping) else None
            if isinstance(number, int) and number in PORTS:
                yield manifest.error(
                    (*container, "ports", index, "hostPort"),
                    "port-open",
                    f"port {number} ({PORTS[number]}) is one of the machine",
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
