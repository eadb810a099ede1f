"""A real Ray head with a dashboard on free loopback ports, ended by its own pid."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parents[1]
START_TIMEOUT_S = 90


@dataclass(frozen=True)
class RayHead:
    """A running head.

    Args:
        dashboard: URL of its dashboard, which takes jobs and Serve configurations.
        environment: of every command that talks to it, its token included.
    """

    dashboard: str
    environment: Mapping[str, str]

    def run(self, *command: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command of this Python's environment against the head, in the repository."""
        return subprocess.run(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            env=dict(self.environment),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    @classmethod
    @contextmanager
    def started(cls, environment: Mapping[str, str]) -> Iterator[RayHead]:
        """Start a head with token authentication; end it and remove its files afterwards."""
        # Unix sockets allow few characters, so pytest's own temporary folders are too deep.
        folder = Path(tempfile.mkdtemp(prefix="kr"))
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
        variables = {
            **os.environ,
            **environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ADDRESS": dashboard,
            "RAY_API_SERVER_ADDRESS": dashboard,
            # As in an activated virtual environment: jobs find its `python`.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(REPOSITORY / "platform"),
        }
        without_address = {k: v for k, v in variables.items() if k != "RAY_ADDRESS"}
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *("--node-ip-address", "127.0.0.1", "--num-cpus", "4", "--temp-dir", str(folder)),
            *("--include-dashboard", "true", "--disable-usage-stats"),
            *(f"--{name}={port}" for name, port in ports.items()),
        ]
        with (folder / "head.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=without_address, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            _wait_until_it_answers(process, dashboard, token.read_text(), folder / "head.log")
            yield cls(dashboard, variables)
        finally:
            process.send_signal(signal.SIGTERM)  # --block passes it on to all of its processes
            process.wait(timeout=60)
            shutil.rmtree(folder, ignore_errors=True)


PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "ray-client-server-port",
)


def free_ports(number: int) -> list[int]:
    """Return ports that are free on loopback right now, all different."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_until_it_answers(
    process: subprocess.Popen[bytes], dashboard: str, token: str, log: Path
) -> None:
    """Wait for the job server: the dashboard answers before it takes jobs."""
    transport = httpx.HTTPTransport(retries=3)
    with httpx.Client(transport=transport, headers={"Authorization": f"Bearer {token}"}) as client:
        for _ in range(START_TIMEOUT_S * 2):
            if process.poll() is not None:
                break
            try:
                if client.get(f"{dashboard}/api/jobs/", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                pass
            try:
                process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue
    raise RuntimeError(f"the head did not start: {log.read_text()[-2000:]}")
