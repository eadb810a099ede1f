"""The environments of the servers that Kovar does not bring along: one for each, made once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

SHARED = ("onnxruntime", "tokenizers")
"""Packages that all contenders have in the version that Kovar runs with."""


@dataclass(frozen=True)
class Outsider:
    """A server of somebody else's.

    Args:
        packages: what pip installs.
        script: the file of ours that it serves.
        prepare: writes its configuration into a folder and returns its command, given the port
            and the number of threads.
        environment: variables of its processes.
    """

    packages: tuple[str, ...]
    script: str
    prepare: Callable[[Path, int, int], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


def _bentoml(folder: Path, port: int, threads: int) -> list[str]:
    served = ["serving_bentoml:Service", "--working-dir", str(folder)]
    return ["bentoml", "serve", *served, "--host", "127.0.0.1", "--port", str(port)]


def _mlserver(folder: Path, port: int, threads: int) -> list[str]:
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": 0,
        "metrics_endpoint": None,
        "parallel_workers": 1,
        "debug": False,  # which writes a line for each request
    }
    model = {
        "name": "classifier",
        "implementation": "serving_mlserver.Runtime",
        "max_batch_size": 32,
        "max_batch_time": 0.005,
        "parameters": {"extra": {"threads": threads}},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return ["mlserver", "start", str(folder)]


OUTSIDERS = {
    "bentoml": Outsider(
        ("bentoml==1.4.39",), "serving_bentoml.py", _bentoml, {"BENTOML_DO_NOT_TRACK": "True"}
    ),
    # Its workers do not start with a later uvloop.
    "mlserver": Outsider(("mlserver==1.7.1", "uvloop<0.22"), "serving_mlserver.py", _mlserver),
}


def ensure_environment(kind: str, folder: Path) -> Path:
    """Return the interpreter of a contender's virtual environment, made at first use.

    Args:
        kind: one of `OUTSIDERS`.
        folder: that holds the environments.
    """
    packages = [*OUTSIDERS[kind].packages, *(f"{name}=={version(name)}" for name in SHARED)]
    place, python = folder / kind, folder / kind / "bin" / "python"
    made = place / "packages.json"
    if made.exists() and json.loads(made.read_text()) == packages:
        return python
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    made.write_text(json.dumps(packages))
    return python
