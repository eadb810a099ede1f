"""Regions, zones and images of a cloud."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding

_ZONE = re.compile(r"zones/([a-z0-9-]+)/")


def check_zones(cluster: ClusterYaml) -> Iterator[Finding]:
    """Report zones that are not in the region, disks elsewhere, and Ray's outdated AWS image."""
    region = cluster.get(("provider", "region"))
    zones = str(cluster.get(("provider", "availability_zone")) or "").replace(" ", "").split(",")
    zones = [zone for zone in zones if zone]
    if cluster.cloud is None:
        return
    for zone in zones:
        if isinstance(region, str) and not zone.startswith(region):
            yield cluster.error(
                ("provider", "availability_zone"),
                "zone",
                f"zone {zone} is not in region {region}",
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
        image = kind.config.get("ImageId")
        if cluster.cloud == "aws" and kind.config and image in (None, "", "latest_dlami"):
            yield cluster.error(
                kind.at("node_config", "ImageId"),
                "image-id",
                "without ImageId Ray takes an image of 2022 (Ubuntu 18.04), too old for today's "
                "drivers and Python",
                fix="add ImageId: an Ubuntu 22.04 image, with NVIDIA's driver where there are GPUs",
            )
