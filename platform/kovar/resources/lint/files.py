"""Files that `ray up` copies or reads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from kovar.config import FieldPath
from kovar.errors import did_you_mean
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding

_AUTH_FILE: Final = ".ray/auth_token"


def check_files(cluster: ClusterYaml, *, folders: Sequence[Path]) -> Iterator[Finding]:
    """Report sources of file_mounts and keys that are not there.

    Paths below the home folder belong to the machine that runs `ray up`: `unfilled` reports them.

    Args:
        cluster: the file.
        folders: where `ray up` may be run: relative paths are looked up in each.
    """
    mounts = cluster.mapping(("file_mounts",))
    for target, local in mounts.items():
        if isinstance(local, str) and not local.startswith(("~", "$")):
            yield from _source(cluster, ("file_mounts", target), local, folders)
    if cluster.is_simulated:
        return
    key = cluster.get(("auth", "ssh_private_key"))
    if isinstance(key, str) and "BEGIN" not in key:
        yield from _ssh_key(cluster, key)
    with_token = next((c for c in cluster.all_commands() if "RAY_AUTH_MODE=token" in c.text), None)
    if with_token is not None and not any(str(t).endswith(_AUTH_FILE) for t in mounts):
        yield cluster.error(
            ("file_mounts",),
            "auth-token",
            "requests need a token (RAY_AUTH_MODE=token), and no node gets it",
            fix='add "~/.ray/auth_token": "~/.ray/auth_token"',
        )


def _source(
    cluster: ClusterYaml, path: FieldPath, local: str, folders: Sequence[Path]
) -> Iterator[Finding]:
    # Unlike the methods of a path, these never raise: no name that is too long exists.
    if any(os.path.exists(folder / local) for folder in folders):  # noqa: PTH110
        return
    near = next(
        (
            hint
            for folder in folders
            if os.path.isdir(parent := (folder / local).parent)  # noqa: PTH112
            if (hint := did_you_mean(Path(local).name, sorted(p.name for p in parent.iterdir())))
        ),
        None,
    )
    yield cluster.error(
        path,
        "file-mount",
        f"there is no {local} to copy",
        fix=near or "paths are relative to the folder in which `ray up` runs",
    )


def _ssh_key(cluster: ClusterYaml, key: str) -> Iterator[Finding]:
    if not key.startswith("~") and not Path(key).exists():
        yield cluster.error(
            ("auth", "ssh_private_key"),
            "ssh-key",
            f"there is no private key at {key}",
            fix="give its path, or remove the line: Ray makes a key of its own",
        )
    if cluster.provider != "aws":
        return
    for kind in cluster.node_types:
        if "KeyName" not in kind.config:
            yield cluster.error(
                kind.at("node_config"),
                "ssh-key",
                f"with ssh_private_key each node type needs KeyName; {kind.name} has none",
                fix="add KeyName: the name of this key pair in EC2",
            )
