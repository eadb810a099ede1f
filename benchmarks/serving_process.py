"""The servers of serving.py, each in processes of its own on a free port of loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving_dialect import DIALECTS
from serving_environment import OUTSIDERS, Outsider, ensure_environment
from serving_subject import Subject

HERE = Path(__file__).parent
PATIENCE_S = 120


class Server(ABC):
    """A server that runs; its output goes to a file.

    Args:
        kind: names it; see `DIALECTS`.
        subject: what it serves.
    """

    process: subprocess.Popen[str]

    def __init__(self, kind: str, subject: Subject) -> None:
        self.kind, self.dialect = kind, DIALECTS[kind]
        (self.port,) = free_ports(1)
        self.log = subject.folder / "server.log"

    @abstractmethod
    def close(self) -> None:
        """End it."""

    def tell(self, line: str) -> Any:
        """Ask the server's process for something; see serving_server.py."""
        raise NotImplementedError(f"{self.kind} is asked for {line}")

    def scores(self, texts: list[str]) -> list[float]:
        """Ask once, and return the probability of `positive` of each text."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self.dialect.path}",
            json.dumps(self.dialect.body(texts)).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
            return self.dialect.scores(json.load(answer))

    def ended(self) -> SystemExit:
        """Return what tells that it has ended, and its last words."""
        return SystemExit(f"{self.kind} has ended: {self.log.read_text()[-3000:]}")


class OwnServer(Server):
    """One that serving_server.py runs: Kovar, Ray Serve's pattern or FastAPI.

    Args:
        kind: of server.
        subject: what it serves.
        spec: the serving spec, for Kovar.
        nodes: of Ray, on this machine.
    """

    def __init__(self, kind: str, subject: Subject, spec: dict[str, Any], *, nodes: int) -> None:
        super().__init__(kind, subject)
        ingress = {"RAY_SERVE_ENABLE_HA_PROXY": "1"} if subject.options.ingress == "haproxy" else {}
        threads = {"OMP_NUM_THREADS": str(subject.options.threads)}
        command = [sys.executable, str(HERE / "serving_server.py"), kind, str(self.port)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, str(subject.folder), json.dumps(spec), str(nodes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | ingress | threads,
            )
        self._read()

    def tell(self, line: str) -> Any:
        """Ask the server's process for something; see serving_server.py."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the end of its output says why
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:  # a part of Serve that was killed may hold it up
            self.process.terminate()
            self.process.wait()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.startswith('{"answer":'):
                return json.loads(line)["answer"]
        raise self.ended()


class OutsideServer(Server):
    """BentoML or MLServer, in an environment and a folder of its own.

    Args:
        kind: of server.
        subject: what it serves, as an fp32 ONNX file.
    """

    def __init__(self, kind: str, subject: Subject) -> None:
        super().__init__(kind, subject)
        outsider, options = OUTSIDERS[kind], subject.options
        python = ensure_environment(kind, subject.environments)
        folder = _filled(subject.folder / kind, subject, outsider)
        command = outsider.prepare(folder, self.port, options.threads)
        own = {"OMP_NUM_THREADS": str(options.threads), "THREADS": str(options.threads)}
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with self.log.open("w") as log:
            # A session, so that its workers end with it.
            self.process = subprocess.Popen(
                [str(python.parent / command[0]), *command[1:]],
                stdout=log,
                stderr=log,
                text=True,
                cwd=folder,
                env=kept | own | outsider.environment,
                start_new_session=True,
            )
        self._wait(subject)

    def close(self) -> None:
        """End it and its workers."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _wait(self, subject: Subject) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(OSError):
                self.scores(subject.texts[:1])
                return
            time.sleep(0.2)
        self.close()
        raise self.ended()


def free_ports(number: int) -> list[int]:
    """Return free ports of loopback."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _filled(folder: Path, subject: Subject, outsider: Outsider) -> Path:
    if folder.exists():  # filled in an earlier round
        return folder
    folder.mkdir()
    for name in ("serving_onnx.py", outsider.script):
        (folder / name).symlink_to(HERE / name)
    (folder / "model.onnx").symlink_to(subject.export())
    (folder / "tokenizer.json").symlink_to(subject.folder / "model" / "tokenizer.json")
    return folder


def open_server(kind: str, subject: Subject, *, nodes: int = 1, **changes: Any) -> Server:
    """Start a server; `changes` are those to the serving spec of Kovar."""
    if kind in OUTSIDERS:
        return OutsideServer(kind, subject)
    return OwnServer(kind, subject, subject.spec | changes, nodes=nodes)
