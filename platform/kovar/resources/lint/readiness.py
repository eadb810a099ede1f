"""What is left to fill in before `ray up`: not mistakes, so told apart from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kovar.config import FieldPath
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding

_PLACEHOLDER = re.compile(
    r"\b\S*FILL[-_ ]?IN\b\S*|\bFILE-SERVER\b|\bYOUR[-_][A-Z_-]+\b"
    r"|\b(?:CHANGE|REPLACE)[-_]?ME\b|<[A-Za-z][\w -]*>"
)


def check_readiness(cluster: ClusterYaml) -> Iterator[Finding]:
    """Report placeholders, and files of the home folder that this machine lacks."""
    if cluster.provider == "gcp" and not cluster.get(("provider", "project_id")):
        yield _fill_in(cluster, ("provider", "project_id"), "the id of your project")
    seen: set[str] = set()
    for path, text in cluster.texts():
        for match in _PLACEHOLDER.finditer(text):
            # What YAML repeats by an alias is filled in once.
            if text not in seen:
                yield _fill_in(cluster, path, match[0], part=match[0])
        seen.add(text)
    paths: list[FieldPath] = [
        ("file_mounts", target) for target in cluster.mapping(("file_mounts",))
    ]
    for path in (*paths, ("auth", "ssh_private_key")):
        local = cluster.get(path)
        if (
            isinstance(local, str)
            and local.startswith("~")
            and not Path(local).expanduser().exists()
        ):
            yield cluster.warning(
                path,
                "fill-in",
                f"there is no {local} on this machine",
                fix="create it with `ray get-auth-token --generate`"
                if local.endswith("auth_token")
                else "create it, or correct the path",
            )


def _fill_in(cluster: ClusterYaml, path: FieldPath, what: str, part: str = "") -> Finding:
    return cluster.warning(
        path, "fill-in", f"left to fill in: {what}", fix="write your own value", part=part
    )
