"""What is left to fill in before a cluster can start: not mistakes, so told apart from them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from kovar.config import FieldPath
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.manifest import Manifest
from kovar.resources.lint.source import Source

_PLACEHOLDER = re.compile(
    r"\b\S*FILL[-_ ]?IN\b\S*|\bFILE-SERVER\b|\bYOUR[-_][A-Z_-]+\b"
    r"|\b(?:CHANGE|REPLACE)[-_]?ME\b|<[A-Za-z][\w -]*>"
)


def check_readiness(source: Source) -> Iterator[Finding]:
    """Report placeholders, and files of the home folder that this machine lacks."""
    seen: set[str] = set()
    for path, text in source.texts():
        for match in _PLACEHOLDER.finditer(text):
            # What YAML repeats by an alias is filled in once.
            if text not in seen:
                yield _fill_in(source, path, match[0], part=match[0])
        seen.add(text)
    if isinstance(source, ClusterYaml):
        yield from _of_cluster(source)
    elif isinstance(source, Manifest):
        yield from _of_manifest(source)


def _of_cluster(cluster: ClusterYaml) -> Iterator[Finding]:
    if cluster.provider == "gcp" and not cluster.get(("provider", "project_id")):
        yield _fill_in(cluster, ("provider", "project_id"), "the id of your project")
    paths: list[FieldPath] = [
        ("file_mounts", target) for target in cluster.mapping(("file_mounts",))
    ]
    for path in (*paths, ("auth", "ssh_private_key")):
        local = cluster.get(path)
        if not isinstance(local, str) or not local.startswith("~"):
            continue
        if not os.path.exists(os.path.expanduser(local)):  # noqa: PTH110, PTH111
            is_token = local.endswith("auth_token")
            yield cluster.warning(
                path,
                "fill-in",
                f"there is no {local} on this machine",
                fix="create it with `ray get-auth-token --generate`"
                if is_token
                else "create it, or correct the path",
            )


def _of_manifest(manifest: Manifest) -> Iterator[Finding]:
    for _, container in manifest.containers():
        path = (*container, "image")
        if str(manifest.get(path)).removeprefix("docker.io/").startswith("rayproject/"):
            yield _fill_in(manifest, path, "an image with Kovar; Ray's own holds Ray only")
            return


def _fill_in(source: Source, path: FieldPath, what: str, part: str = "") -> Finding:
    return source.warning(
        path, "fill-in", f"left to fill in: {what}", fix="write your own value", part=part
    )
