"""Rules for the containers of a KubeRay manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kovar.config import FieldPath, format_size
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.machines import OFFERED_MEMORY
from kovar.resources.lint.manifest import Group, Manifest

_SECRET_NAME = re.compile(r"(?i)(secret|token|password|api_?key|access_key)")


def check_container(manifest: Manifest, group: Group, container: FieldPath) -> Iterator[Finding]:
    """Report amounts that Kubernetes refuses, and settings that belong elsewhere."""
    yield from _requests(manifest, container)
    yield from _memory(manifest, group, container)
    yield from _environment(manifest, container)


def check_shared_folder(manifest: Manifest) -> Iterator[Finding]:
    """Report runs and checkpoints that some pods would keep to themselves."""
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
