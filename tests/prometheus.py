"""Debian's Prometheus for tests: its checks of rules and expressions, and a server that scrapes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

MISSING = (
    "the tests of metrics need Prometheus and found none: install Debian's package prometheus "
    "(apt-get install prometheus), or put prometheus and promtool on PATH"
)


def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(MISSING, pytrace=False)
    return found


def promtool(*arguments: str | Path) -> str:
    """Run a check; what it says is part of the failure."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Server:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        """Ask its HTTP interface."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10) as response:
            return json.loads(response.read())["data"]

    def value(self, expression: str) -> float | None:
        """Return the first value of an expression; None where it has none."""
        result = self.get("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None

    def wait_for(self, expression: str, *, timeout_s: float = 60.0) -> float:
        """Return the expression's value once it has one above zero."""
        pause = threading.Event()
        for _ in range(round(timeout_s * 4)):
            try:
                value = self.value(expression)
            except OSError:  # it is still starting
                value = None
            if value:
                return value
            pause.wait(0.25)
        pytest.fail(f"Prometheus has seen nothing of {expression} in {timeout_s:.0f} s")


@contextmanager
def scraping(folder: Path, targets: list[str], rules: Path) -> Iterator[Server]:
    """Start a server that scrapes targets every quarter of a second and knows rules."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "prometheus.yaml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
                "rule_files": [str(rules)],
                "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": targets}]}],
            }
        )
    )
    command = [
        program("prometheus"), f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Server(f"http://{address}")
    finally:
        process.terminate()
        process.wait()
