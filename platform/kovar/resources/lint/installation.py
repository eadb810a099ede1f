"""What nodes install: Kovar, Ray at the version that Kovar is tested with, the cloud's client."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from kovar.config import FieldPath
from kovar.resources.lint.cluster_yaml import ClusterYaml, Command
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.image import check_image

_INSTALLS_KOVAR = re.compile(
    r"\b(?:pip|uv|poetry)\b[^\n]*\b(?:install|add)\b[^\n]*"
    r"[\s\"'/]kovar(?:-platform)?(?:\[[^\]]*\])?(?:[=<>~!]=[^\s\"']*)?[\"']?(?:[\s;&]|$)"
)
_INSTALLS_RAY = re.compile(
    r"\binstall\b[^\n]*?[\s\"']ray(?:\[[\w,\- ]*\])?\s*(==|>=|~=|<=|>|<|@)?\s*([\w.*+:/\-]+)?"
)
_RAY_WHEEL = re.compile(r"\bray-(\d[\w.]*?)-cp\d")
_PYTHON = re.compile(r"--python[= ](\d+\.\d+)\b|\bpython=(\d+\.\d+)\b")
_OLDEST_PYTHON: Final = (3, 11)
_SDK: Final = {"gcp": "google-api-python-client", "aws": "boto3"}


def pinned_ray(folders: Iterable[Path]) -> str:
    """Return the Ray version of the first constraints.txt, else of this installation."""
    for folder in folders:
        file = folder / "constraints.txt"
        if file.is_file():
            match = re.search(r"^ray==(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
            if match:
                return match[1]
    return version("ray")


def check_installation(cluster: ClusterYaml, *, ray: str) -> Iterator[Finding]:
    """Report nodes that would lack Kovar, another Ray than `ray`, or their cloud's client."""
    if cluster.is_simulated:
        return
    for path, image in cluster.images():
        needs_gpu = _runs_on_gpus(cluster, path)
        yield from check_image(cluster, path, image, ray=ray, needs_gpu=needs_gpu)
    for command in cluster.all_commands():
        yield from _ray_in(cluster, command, ray)
        yield from _python_in(cluster, command)
        yield from _copied(cluster, command)
    yield from _kovar(cluster)
    yield from _container(cluster)
    yield from _cloud_client(cluster)


def _runs_on_gpus(cluster: ClusterYaml, path: FieldPath) -> bool:
    """Whether the image at `path` runs on a node with GPUs: the most specific image is taken."""
    for kind in cluster.workers:
        choices = (
            kind.at("docker", "worker_image"),
            ("docker", "worker_image"),
            ("docker", "image"),
        )
        if kind.amount("GPU") and path == next((one for one in choices if cluster.get(one)), None):
            return True
    return False


def _ray_in(cluster: ClusterYaml, command: Command, ray: str) -> Iterator[Finding]:
    wheel = _RAY_WHEEL.search(command.text)
    match = _INSTALLS_RAY.search(command.text)
    found: str | None
    if wheel:
        found, part = wheel[1], wheel[0]
    elif match and match[1] == "==":
        found, part = match[2], f"=={match[2]}"
    elif match and "constraint" not in command.text and " -c " not in command.text:
        found, part = None, "ray"
    else:
        return
    if found == ray:
        return
    yield cluster.error(
        command.path,
        "ray-version" if found else "ray-unpinned",
        f"installs Ray {found}; Kovar is tested with {ray}, and all nodes need the same"
        if found
        else "installs whichever Ray is newest on that day; all nodes need the same",
        fix=f'install "ray[default,serve,train,tune]=={ray}"',
        part=part,
    )


def _python_in(cluster: ClusterYaml, command: Command) -> Iterator[Finding]:
    match = _PYTHON.search(command.text)
    written = (match[1] or match[2]) if match else ""
    if match and tuple(map(int, written.split("."))) < _OLDEST_PYTHON:
        yield cluster.error(
            command.path,
            "python-version",
            f"Python {written} is older than Kovar supports",
            fix="use Python 3.11 or newer, the same on every node",
            part=match[0],
        )


def _kovar(cluster: ClusterYaml) -> Iterator[Finding]:
    if any("kovar" in image.lower() for _, image in cluster.images()):
        return
    shared = _installs(cluster.commands("setup_commands"))
    path: FieldPath = ("setup_commands",)
    fix = 'add the line: pip install "kovar-platform", or copy this repository with file_mounts'
    if not shared and not _installs(cluster.commands("worker_setup_commands")):
        yield cluster.error(
            path,
            "kovar-missing",
            "no setup command installs Kovar"
            + ("" if cluster.has(path) else ", and Ray's default installs a nightly Ray"),
            fix=fix,
        )
    elif not shared and not _installs(cluster.commands("head_setup_commands")):
        yield cluster.error(
            ("head_setup_commands",), "kovar-missing", "the head does not install Kovar", fix=fix
        )
    for kind in cluster.workers:
        own = kind.at("worker_setup_commands")
        if cluster.items(own) and not _installs(cluster.commands_at(own)):
            yield cluster.error(
                own,
                "kovar-missing",
                "these commands replace the common ones for this type, and do not install Kovar",
                fix="repeat the common setup_commands in this list",
            )


def _copied(cluster: ClusterYaml, command: Command) -> Iterator[Finding]:
    """What pip reads from the home folder has to be copied there."""
    targets = [str(target).rstrip("/") for target in cluster.mapping(("file_mounts",))]
    if not re.search(r"\bpip\b.*\binstall\b", command.text, re.DOTALL):
        return
    for match in re.finditer(r"(?<=[\s=])~/(?!\.)([\w./-]+)", command.text):
        wanted = match[0].rstrip("/")
        if wanted.endswith("/python"):
            continue
        is_folder = "." not in wanted.rpartition("/")[2]
        needed = [f"{wanted}/pyproject.toml", f"{wanted}/platform"] if is_folder else [wanted]
        for file in needed:
            if not any(file == target or file.startswith(f"{target}/") for target in targets):
                yield cluster.error(
                    command.path,
                    "file-mount",
                    f"pip reads {file}, and file_mounts copies nothing there",
                    fix=f'add "{file}" to file_mounts',
                    part=match[0],
                )


def _container(cluster: ClusterYaml) -> Iterator[Finding]:
    if any(path[0] == "docker" for path, _ in cluster.images()) and not cluster.get(
        ("docker", "container_name")
    ):
        yield cluster.error(
            ("docker", "container_name"),
            "container-name",
            "Ray refuses an image without container_name",
            fix="add container_name: ray",
        )


def _installs(commands: Iterable[Command]) -> bool:
    return any(_INSTALLS_KOVAR.search(" ".join(one.text.split("\n"))) for one in commands)


def _cloud_client(cluster: ClusterYaml) -> Iterator[Finding]:
    """The head starts workers: it needs its cloud's client in the environment that runs Ray."""
    client = _SDK.get(cluster.provider)
    if client is None or any(cluster.images()):
        return
    given = [c.text for c in cluster.commands("setup_commands", "head_setup_commands")]
    default = not cluster.has(("head_setup_commands",)) and not any("venv" in c for c in given)
    if not default and not any(client in text for text in given):
        yield cluster.error(
            ("head_setup_commands",),
            "cloud-client",
            f"the head does not install {client}, so its autoscaler cannot start workers",
            fix=f"install {client} in head_setup_commands, in the environment that runs Ray",
        )
