"""The commands that start Ray on the nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from kovar.resources.lint.cluster_yaml import (
    SETUP_KEYS,
    ClusterYaml,
    Command,
    environment_value,
)
from kovar.resources.lint.finding import Finding

BOOTSTRAP_CONFIG: Final = "ray_bootstrap_config.yaml"
_SHARED: Final = "KOVAR_HOME"
_DATABASE: Final = "KOVAR_DATABASE_URL"


def check_start(cluster: ClusterYaml) -> Iterator[Finding]:
    """Report commands with which no worker would ever come, or would not share its files."""
    if cluster.is_simulated:
        return
    head = list(cluster.commands("head_start_ray_commands"))
    worker = list(cluster.commands("worker_start_ray_commands"))
    starts = [command for command in head if "ray start" in command.text]
    if head and not any("--head" in command.text for command in starts):
        yield cluster.error(
            ("head_start_ray_commands",),
            "head-start",
            "no command starts the head",
            fix="add `ray start --head --autoscaling-config=~/ray_bootstrap_config.yaml …`",
        )
    for command in starts:
        yield from _autoscaling(cluster, command)
    port = next((found for c in starts if (found := _port(c.text))), "6379")
    yield from _worker_start(cluster, worker, port)
    yield from _environment(cluster, head, worker)


def _port(text: str) -> str | None:
    match = re.search(r"--port[= ](\d+)", text)
    return match[1] if match else None


def _autoscaling(cluster: ClusterYaml, command: Command) -> Iterator[Finding]:
    if "--head" not in command.text:
        return
    config = re.search(r"--autoscaling-config[= ](\S+)", command.text)
    if config is None:
        yield cluster.error(
            command.path,
            "autoscaling-config",
            "without --autoscaling-config the head never starts a worker",
            fix="add --autoscaling-config=~/ray_bootstrap_config.yaml",
            part="ray start",
        )
    elif not config[1].endswith(BOOTSTRAP_CONFIG):
        yield cluster.error(
            command.path,
            "autoscaling-config",
            f"`ray up` writes the configuration to ~/{BOOTSTRAP_CONFIG}, not to {config[1]}",
            fix="use --autoscaling-config=~/ray_bootstrap_config.yaml",
            part="--autoscaling-config",
        )


def _worker_start(cluster: ClusterYaml, worker: list[Command], port: str) -> Iterator[Finding]:
    starts = [command for command in worker if "ray start" in command.text]
    if worker and not starts:
        yield cluster.error(
            ("worker_start_ray_commands",),
            "worker-start",
            "no command starts Ray on the workers",
            fix=f"add `ray start --address=$RAY_HEAD_IP:{port}`",
        )
    for command in starts:
        address = re.search(r"--address[= ][\"']?([^\s\"']+)", command.text)
        found = address[1] if address else None
        if "--head" in command.text:
            problem, part = "starts a cluster of its own on every worker", "--head"
        elif found is None:
            problem, part = "names no head to join", "ray start"
        elif "RAY_HEAD_IP" not in found:
            problem, part = f"joins {found}, and the head's address is not known before", found
        elif found.rpartition(":")[2] != port:
            problem, part = f"joins port {found.rpartition(':')[2]}, the head listens on", found
            problem += f" {port}"
        else:
            continue
        yield cluster.error(
            command.path,
            "worker-start",
            f"this command {problem}",
            fix=f"use `ray start --address=$RAY_HEAD_IP:{port}`",
            part=part,
        )


def _environment(
    cluster: ClusterYaml, head: list[Command], worker: list[Command]
) -> Iterator[Finding]:
    for command in (*head, *worker):
        if re.search(r"\bRAY_enable_autoscaler_v2=[\"']?(?:0|false)", command.text):
            yield cluster.warning(
                command.path,
                "autoscaler-v1",
                "the first autoscaler does not read label selectors: work that has one waits",
                fix="remove RAY_enable_autoscaler_v2=0; `ray up` turns the second one on",
                part="RAY_enable_autoscaler_v2",
            )
        yield from _database(cluster, command)
    homes = {
        key: next((found for c in commands if (found := environment_value(c.text, _SHARED))), None)
        for key, commands in (("head", head), ("worker", worker))
    }
    if homes["head"] and not worker:
        yield cluster.error(
            ("worker_start_ray_commands",),
            "kovar-home",
            f"Ray's default command starts workers without {_SHARED}={homes['head']}: they share "
            "no runs and no checkpoints",
            fix="write worker_start_ray_commands with the same export as the head's",
        )
    elif homes["head"] and not _is_mounted(cluster, homes["head"]):
        yield cluster.error(
            head[-1].path,
            "kovar-home",
            f"no command mounts {homes['head']}: each node would keep its own files there",
            fix="mount your file server there in setup_commands",
            part=_SHARED,
        )
    if head and worker and homes["head"] != homes["worker"]:
        said = {key: f"{_SHARED}={home}" if home else "none" for key, home in homes.items()}
        start = next((c for c in reversed(worker) if "ray start" in c.text), worker[-1])
        yield cluster.error(
            start.path,
            "kovar-home",
            f"the head uses {said['head']}, workers use {said['worker']}: they share no runs "
            "and no checkpoints",
            fix=f"export the same {_SHARED}, a shared folder, in both lists",
            part=_SHARED,
        )


def _is_mounted(cluster: ClusterYaml, home: str) -> bool:
    """Whether a command mounts a folder that holds `home`, or a container has it as a volume."""
    path = PurePosixPath(home)
    folders = [str(path), *(str(one) for one in path.parents if len(one.parts) > 2)]
    texts = [command.text for command in cluster.commands(*SETUP_KEYS) if "mount" in command.text]
    texts += [text for _, text in cluster.texts(("docker",))]
    return any(
        folder in text.split() or f":{folder}" in text for folder in folders for text in texts
    )


def _database(cluster: ClusterYaml, command: Command) -> Iterator[Finding]:
    home = environment_value(command.text, _SHARED)
    url = environment_value(command.text, _DATABASE) or ""
    file = url.removeprefix("sqlite:///")
    if home and file != url and file.startswith(f"{home.rstrip('/')}/"):
        yield cluster.error(
            command.path,
            "sqlite-on-share",
            "SQLite on a shared file system loses writes: locks do not work there",
            fix="keep it on the head's own disk, or use PostgreSQL",
            part=_DATABASE,
        )
