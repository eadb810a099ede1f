"""A real PostgreSQL server for tests: an own cluster in a temporary folder, on a free port.

PostgreSQL refuses to run as root, so a suite run by root starts it as an unprivileged user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

USER = "kovar"
MISSING = (
    "the registry's tests need PostgreSQL and found no initdb: install Debian's package "
    "postgresql (apt-get install postgresql), or put initdb and pg_ctl on PATH"
)


def find_programs() -> Path:
    """Return the folder of initdb and pg_ctl; Debian keeps them off PATH, newest version last."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0,
    )
    if installed:
        return installed[-1].parent
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    pytest.fail(MISSING, pytrace=False)


class PostgresServer:
    """One server; `stop` and `start` keep its data, `close` removes it."""

    def __init__(self) -> None:
        self.programs = find_programs()
        self.folder = Path(tempfile.mkdtemp(prefix="kovar-postgres-"))
        self.as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            account = _unprivileged()
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self.as_user = {
                "user": account.pw_uid,
                "group": account.pw_gid,
                "extra_groups": [],
            }
        self.port = _free_port()
        self._databases = 0
        self._run("initdb", "--username", USER, "--auth=trust", "--no-sync", "--encoding=UTF8")
        self.start()

    def start(self) -> None:
        # A crash of the machine does not matter here, so nothing waits for the disk.
        options = (
            f"-h 127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off "
            "-c max_connections=200 -c shared_buffers=32MB"
        )
        self._run("pg_ctl", "start", "--wait", "--log", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=fast")

    def kill(self) -> None:
        """End it as a power cut does; it recovers at the next start."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        self._run("pg_ctl", "stop", "--wait", check=False)

    def close(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate", check=False)
        shutil.rmtree(self.folder)

    def create_database(self, *, template: str = "template1") -> str:
        """Create a database; return its URL."""
        self._databases += 1
        name = f"kovar_{self._databases}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str) -> None:
        import psycopg

        address = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        with closing(psycopg.connect(address, autocommit=True)) as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        command = [str(self.programs / program), *arguments, "-D", str(self.folder / "data")]
        done = subprocess.run(
            command,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            **self.as_user,
        )
        if check and done.returncode:
            log = self.folder / "log"
            pytest.fail(f"{program}: {done.stderr}{log.read_text() if log.exists() else ''}")


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.fail("run the suite as a user other than root: PostgreSQL refuses to run as root")


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
