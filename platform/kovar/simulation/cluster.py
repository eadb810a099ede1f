"""A declared cluster, rehearsed on this machine by Ray's real autoscaler and fake nodes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import kovar
from kovar.errors import NotFoundError, RunError
from kovar.resources import Cluster
from kovar.simulation.autoscaling import (
    HEAD_ID,
    autoscaling_config,
    head_type,
    host_labels,
    host_resources,
)
from kovar.simulation.processes import descendants
from kovar.simulation.reasons import explained
from kovar.simulation.status import ClusterStatus, Node

IDLE_TIMEOUT_S: Final = 30.0
"""In a rehearsal one wants to see idle nodes go."""

_HOST: Final = "127.0.0.1"
_OBJECT_STORE_BYTES: Final = 200 << 20
_LOOK_EVERY_S: Final = 0.3
_ANSWER_TIMEOUT_S: Final = 60
_START_TIMEOUT_S: Final = 150
_STOP_TIMEOUT_S: Final = 90
_PORTS: Final = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "ray-client-server-port",
)
# What would connect the head to another cluster, or tell Ray about this machine's own chips.
_FOREIGN: Final = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "CUDA_VISIBLE_DEVICES", "RAY_NAMESPACE")


class SimulatedCluster:
    """A Ray head on this machine, and fake nodes that its autoscaler starts and stops.

    Nodes have the resources and labels of their types and no such hardware, so it shows where work
    runs, what waits and what recovers, and says nothing about speed. It listens on loopback, with
    a token of its own, beside any other Ray on the machine; leaving the `with` block ends each of
    its processes, and so does the death of this process.

    Args:
        cluster: the declaration.
        idle_timeout_s: seconds after which an idle node stops.
        dashboard: whether to start Ray's dashboard, which also takes jobs.

    Raises:
        RunError: the head does not start.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        dashboard: bool = True,
    ) -> None:
        self.cluster = cluster
        self.idle_timeout_s = idle_timeout_s
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self._has_dashboard = dashboard
        self._asking = threading.Lock()
        self._unread = b""

    @property
    def address(self) -> str:
        """Where drivers connect: RAY_ADDRESS."""
        return f"{_HOST}:{self._ports['port']}"

    @property
    def dashboard_url(self) -> str | None:
        """URL of the dashboard and of the job server; None without one."""
        return f"http://{_HOST}:{self._ports['dashboard-port']}" if self._has_dashboard else None

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a process that works on this cluster, beside its own."""
        variables = {
            "RAY_ADDRESS": self.address,
            # Loopback stays loopback: Ray would turn it into this machine's network address.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._folder / "token"),
            "KOVAR_SIMULATED": "1",
        }
        if self.dashboard_url is not None:
            variables["RAY_API_SERVER_ADDRESS"] = self.dashboard_url
            variables["RAY_DASHBOARD_ADDRESS"] = self.dashboard_url
        return variables

    def __enter__(self) -> Self:
        # Unix sockets allow few characters for a path.
        self._folder = Path(tempfile.mkdtemp(prefix="kovar-"))
        (self._folder / "nodes").mkdir()
        (self._folder / "token").touch(mode=0o600)
        (self._folder / "token").write_text(secrets.token_hex(32))
        self._write("labels.yaml", host_labels(head_type(self.cluster)))
        self._write("cluster.yaml", self._config())
        self._keeper = self._started()
        try:
            self._answer(_START_TIMEOUT_S)
            if self.dashboard_url is not None:
                _wait_for(self.dashboard_url, (self._folder / "token").read_text())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def status(self) -> ClusterStatus:
        """Return what is up, what is on its way and what waits, with the reasons.

        Raises:
            RunError: the head is gone.
        """
        with self._asking:
            self._ask()
            facts = self._answer(_ANSWER_TIMEOUT_S)
        status = ClusterStatus.from_json(facts)
        pending = tuple(
            replace(one, reason=explained(one, status, self.cluster)) for one in status.pending
        )
        return replace(status, pending=pending)

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes that are up, the head first."""
        return self.status().nodes

    def wait(self, until: Callable[[ClusterStatus], bool], *, timeout_s: float) -> ClusterStatus:
        """Look at the cluster until a condition holds; return what was seen then.

        Raises:
            TimeoutError: it did not hold in time; the message has what was seen last.
        """
        end = time.monotonic() + timeout_s
        while not until(status := self.status()):
            if time.monotonic() > end:
                raise TimeoutError(f"not seen in {timeout_s:.0f} s; last: {status}")
            time.sleep(_LOOK_EVERY_S)
        return status

    def kill_node(self, node_id: str) -> None:
        """Kill a node without warning, as a cloud takes a Spot machine; its work dies with it.

        Args:
            node_id: its name, for example "gpu-l4-1".

        Raises:
            NotFoundError: no such node is up; the head cannot be killed.
        """
        raylet = self._raylet_of(node_id)
        if raylet not in descendants(self._keeper.pid):
            return  # it is dead already, and its number may be that of a stranger
        for pid in [raylet, *descendants(raylet)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _raylet_of(self, node_id: str) -> int:
        """Return the process of a node; Ray may announce a node just before its file is there.

        Raises:
            NotFoundError: no such node is up.
        """
        file = self._folder / "nodes" / f"{node_id}.pid"
        while not file.exists():
            up = [node.id for node in self.nodes() if node.id != HEAD_ID]
            if node_id not in up:
                raise NotFoundError(
                    "no such worker node is up", got=node_id, allowed=", ".join(up) or "none"
                )
            time.sleep(_LOOK_EVERY_S)
        return int(file.read_text())

    def _config(self) -> dict[str, Any]:
        return autoscaling_config(
            self.cluster,
            gcs_address=self.address,
            folder=str(self._folder / "nodes"),
            idle_timeout_s=self.idle_timeout_s,
        )

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        (self._folder / name).write_text(json.dumps(value))  # JSON is YAML, too

    def _started(self) -> subprocess.Popen[bytes]:
        own = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        library = str(Path(kovar.__file__).parents[1])
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "kovar.simulation.keeper"),
                *(str(self._folder), self.address, *self._head_command()),
            ],
            env={
                **own,
                **_RAY_SETTINGS,
                **{k: v for k, v in self.environment.items() if k != "RAY_ADDRESS"},
                "PYTHONPATH": os.pathsep.join(filter(None, [library, own.get("PYTHONPATH")])),
                "RAY_NODE_TYPE_NAME": head_type(self.cluster).name,
                "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for this process
        )

    def _head_command(self) -> list[str]:
        amounts = host_resources(head_type(self.cluster))
        memory = amounts.pop("memory", None)
        return [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--node-ip-address", _HOST, "--dashboard-host", _HOST),
            *("--temp-dir", str(self._folder), "--disable-usage-stats"),
            *("--autoscaling-config", str(self._folder / "cluster.yaml")),
            *("--num-cpus", str(amounts.pop("CPU"))),
            *("--num-gpus", str(amounts.pop("GPU", 0))),
            *(() if memory is None else ("--memory", str(int(memory)))),
            *("--object-store-memory", str(_OBJECT_STORE_BYTES)),
            *("--resources", json.dumps(amounts)),
            *("--labels-file", str(self._folder / "labels.yaml")),
            *("--include-dashboard", str(self._has_dashboard).lower()),
            *("--min-worker-port", "0", "--max-worker-port", "0"),
            *(f"--{name}={port}" for name, port in self._ports.items()),
        ]

    def _ask(self) -> None:
        try:
            self._keeper.stdin.write(b"\n")  # type: ignore[union-attr]
            self._keeper.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            raise RunError("the simulated cluster has ended") from None

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        """Read one line of the keeper's.

        Raises:
            RunError: the head has a problem, or is gone.
        """
        end = time.monotonic() + timeout_s
        pipe = self._keeper.stdout.fileno()  # type: ignore[union-attr]
        while b"\n" not in self._unread:
            if not select.select([pipe], [], [], max(0, end - time.monotonic()))[0]:
                raise RunError(f"the simulated head gave no answer in {timeout_s:.0f} s")
            read = os.read(pipe, 1 << 16)
            if not read:
                raise RunError("the simulated cluster has ended")
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RunError(f"the simulated head ended: {_last_line(answer['error'])}")
        return answer

    def _end(self) -> None:
        """Close the keeper's input, upon which it ends all of the cluster, and wait for it."""
        with self._keeper as keeper:
            with contextlib.suppress(BrokenPipeError):
                keeper.stdin.close()  # type: ignore[union-attr]
            keeper.wait(timeout=_STOP_TIMEOUT_S)


_RAY_SETTINGS: Final = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    # Many nodes share this machine: no workers before they are needed.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    # A dead node is noticed in seconds.
    "RAY_health_check_period_ms": "1000",
}


def _free_ports(number: int) -> list[int]:
    """Return ports that are free on loopback right now, all different."""
    probes = [socket.create_server((_HOST, 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_for(dashboard: str, token: str) -> None:
    """Wait until the job server answers: the dashboard is up before it takes jobs."""
    request = urllib.request.Request(  # noqa: S310
        f"{dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
    )
    # Straight to loopback: a proxy that the environment names must not see the token.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), direct.open(request, timeout=5):
            return
        time.sleep(0.2)
    raise RunError("the dashboard of the simulated cluster does not answer")


def _last_line(output: str) -> str:
    """Return what a process said last; of a traceback that is the error."""
    return output.strip().rpartition("\n")[2]
