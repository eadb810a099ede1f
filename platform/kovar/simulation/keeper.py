"""The process that starts a simulated cluster's head, tells its state, and ends it whole.

It lives in a session of its own, so Ctrl-C in a terminal does not reach it, and it adopts whatever
loses its parent, so every process of the cluster stays below it. It stops when its standard input
closes, which the kernel does when its parent dies, however it dies.

Each line on standard input asks for the status; each line on standard output is JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from kovar.simulation.observation import observe
from kovar.simulation.processes import adopt_orphans, end_with_parent, kill_descendants, reap

START_TIMEOUT_S: Final = 120
STOP_TIMEOUT_S: Final = 60
_POLL_S: Final = 0.5


def main(argv: list[str]) -> int:
    """Keep a head until told to stop.

    Args:
        argv: the cluster's folder, the head's address, and the command that starts the head.
    """
    folder, address, command = Path(argv[0]), argv[1], argv[2:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    adopt_orphans()
    try:
        head = _start(command, folder)
        _keep(head, address, folder)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_descendants(deadline_s=STOP_TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "head.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent,
        )


def _keep(head: subprocess.Popen[bytes], address: str, folder: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while not (_answers(address) and (answer := _status(address)) and answer["nodes"]):
        if head.poll() is not None or time.monotonic() > end:
            _tell({"error": _tail(folder)})
            return
        if _wait(_POLL_S) and _closed():
            return
    _tell(answer)
    while head.poll() is None:
        reap(keep=head.pid)
        if _wait(_POLL_S):
            if _closed():
                return
            _tell(_status(address) or {"error": _tail(folder)})
    _tell({"error": _tail(folder)})


def _wait(timeout_s: float) -> bool:
    """Wait for a line; False when none came."""
    return bool(select.select([sys.stdin], [], [], timeout_s)[0])


def _closed() -> bool:
    return not os.read(sys.stdin.fileno(), 1 << 16)


def _answers(address: str) -> bool:
    """Whether something listens: Ray's client ends its process when nothing does for long."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def _status(address: str) -> dict[str, Any] | None:
    try:
        return observe(address)
    except Exception as problem:  # Ray's client has no common base for its errors
        sys.stderr.write(f"{type(problem).__name__}: {problem}\n")
        return None


def _tell(answer: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _tail(folder: Path) -> str:
    return (folder / "head.log").read_text(encoding="utf-8", errors="replace")[-3000:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
