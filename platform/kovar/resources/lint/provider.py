"""The provider, and what its machines are started with: zones, disks and images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kovar.errors import did_you_mean
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.node import NodeDeclaration
from kovar.resources.machine_types import machine_type

_PROVIDERS: Final = (
    "aws", "azure", "gcp", "aliyun", "vsphere", "local", "external", "kuberay", "spark",
    "readonly", "fake_multinode", "fake_multinode_docker",
)  # fmt: skip
"""Source: `ray.autoscaler._private.providers`."""

_REQUIRED: Final = {"gcp": ("region", "availability_zone"), "aws": ("region",)}
_GCP_NAME = re.compile(r"[a-z]([a-z0-9-]{0,40}[a-z0-9])?")
_ZONE = re.compile(r"zones/([a-z0-9-]+)/")
_DISKS: Final = (
    ("disks", "initializeParams", "diskSizeGb"),
    ("BlockDeviceMappings", "Ebs", "VolumeSize"),
)
_PLAIN_IMAGES = re.compile(r"projects/(?:ubuntu-os-cloud|debian-cloud|centos-cloud|rocky-linux)\b")


def check_provider(cluster: ClusterYaml) -> Iterator[Finding]:
    """Report what the cloud would refuse, or start without what the node needs."""
    if cluster.provider and cluster.provider not in _PROVIDERS:
        yield cluster.error(
            ("provider", "type"),
            "provider",
            f"Ray has no provider {cluster.provider!r}",
            fix=did_you_mean(cluster.provider, list(_PROVIDERS)) or f"one of {_PROVIDERS}",
        )
    if cluster.cloud is None:
        return
    for key in _REQUIRED[cluster.cloud]:
        if not cluster.get(("provider", key)):
            yield cluster.error(
                ("provider", key),
                "provider",
                f"Ray needs the {key.replace('_', ' ')} on {cluster.cloud.upper()}",
                fix=f"add {key}, for example "
                + ("us-central1-a" if "zone" in key else "us-central1 or us-west-2"),
            )
    name = cluster.get(("cluster_name",))
    if cluster.cloud == "gcp" and isinstance(name, str) and not _GCP_NAME.fullmatch(name):
        yield cluster.error(
            ("cluster_name",),
            "cluster-name",
            f"Google Cloud refuses machines named after {name!r}",
            fix="use at most 42 lower-case letters, digits and hyphens, a letter first",
        )
    yield from _zones(cluster)
    for kind in cluster.node_types:
        yield from _disks(cluster, kind)
        yield from _image(cluster, kind)


def _zones(cluster: ClusterYaml) -> Iterator[Finding]:
    region = cluster.get(("provider", "region"))
    written = str(cluster.get(("provider", "availability_zone")) or "").replace(" ", "")
    zones = [zone for zone in written.split(",") if zone]
    for zone in zones:
        if isinstance(region, str) and (zone == region or not zone.startswith(region)):
            problem = "is a region" if zone == region else f"is not in region {region}"
            yield cluster.error(
                ("provider", "availability_zone"),
                "zone",
                f"{zone} {problem}",
                fix=f"take a zone of {region}, or change region",
            )
    for kind in cluster.node_types:
        for path, text in cluster.texts(kind.at("node_config")):
            named = _ZONE.search(text)
            if named and zones and named[1] not in zones:
                yield cluster.error(
                    path,
                    "zone",
                    f"this is in zone {named[1]}, the cluster is in {zones[0]}",
                    fix=f"write {text.replace(named[1], zones[0])}",
                )


def _disks(cluster: ClusterYaml, kind: NodeDeclaration) -> Iterator[Finding]:
    for disks, settings, key in _DISKS:
        for index in range(len(cluster.items(kind.at("node_config", disks)))):
            path = kind.at("node_config", disks, index, settings, key)
            size = cluster.get(path)
            if size is not None and not re.fullmatch(r"[1-9]\d*", str(size)):
                yield cluster.error(
                    path,
                    "disk-size",
                    f"{size!r} is not a number of GB",
                    fix="write the number alone, for example 200",
                )


def _image(cluster: ClusterYaml, kind: NodeDeclaration) -> Iterator[Finding]:
    image = kind.config.get("ImageId")
    if cluster.cloud == "aws" and kind.config and image in (None, "", "latest_dlami"):
        yield cluster.error(
            kind.at("node_config", "ImageId"),
            "image-id",
            "without ImageId Ray takes an image of 2022 (Ubuntu 18.04), too old for today's "
            "drivers and Python",
            fix="add ImageId: an Ubuntu 22.04 image, with NVIDIA's driver where there are GPUs",
        )
    machine = machine_type("gcp", str(kind.config.get("machineType")))
    has_gpu = kind.config.get("guestAccelerators") or (machine and machine.resource == "GPU")
    if cluster.cloud != "gcp" or not has_gpu or _installs_driver(cluster):
        return
    for path, text in cluster.texts(kind.at("node_config", "disks")):
        if path[-1] == "sourceImage" and _PLAIN_IMAGES.search(text):
            yield cluster.error(
                path,
                "driver",
                "this image has no NVIDIA driver, and the machine has GPUs: Ray finds none",
                fix="take an image of projects/deeplearning-platform-release, or install the "
                "driver in setup_commands",
            )


def _installs_driver(cluster: ClusterYaml) -> bool:
    return any(
        re.search(r"nvidia-(driver|open)|cuda-drivers", c.text) for c in (cluster.all_commands())
    )
