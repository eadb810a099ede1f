"""`kovar cluster local`: rehearse a declared cluster on this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kovar.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from kovar.simulation import ClusterStatus, SimulatedCluster

LABEL: Final = (
    "SIMULATION: fake nodes on this machine, started and stopped by Ray's real autoscaler.\n"
    "It proves scheduling and recovery, never speed: no accelerator here is real."
)
_LOOK_EVERY_S: Final = 1.0
_GRACE_S: Final = 10.0
_EVENTS_SHOWN: Final = 12
# Where a rehearsal would write into, or tell, what is not its own.
_PLACES: Final = ("SETTINGS", "DATABASE_URL", "ARTIFACT_ROOT", "RUNS_DIR", "WEBHOOK_URLS")


def local(
    nodes: Annotated[
        Path, typer.Option(help="cluster.yaml or KubeRay manifest to simulate.", exists=True)
    ],
    command: Annotated[
        list[str] | None, typer.Argument(help="Command to run on it, after `--`; then it ends.")
    ] = None,
    idle_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which an idle node stops.")
    ] = 30,
    dashboard: Annotated[
        bool, typer.Option(help="Start Ray's dashboard, which also takes jobs.")
    ] = True,
) -> None:
    """Simulate a declared cluster on this machine, to rehearse a job on it.

    Without a command it stays until Ctrl-C and shows what comes up, what waits and what stops.
    """
    from rich.console import Console

    from kovar.resources import read_cluster
    from kovar.simulation import SimulatedCluster

    cluster = read_cluster(nodes)
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold yellow]{LABEL}[/]")
    own = _own_places()
    os.environ.update(own)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console.print(f"{cluster.origin}; runs and registry of the rehearsal: {own['KOVAR_HOME']}")
    simulated = SimulatedCluster(cluster, idle_timeout_s=idle_timeout, dashboard=dashboard)
    with simulated:
        if command:
            raise typer.Exit(_run(command, simulated, console))
        for name, value in {**simulated.environment, **own}.items():
            typer.echo(f"export {name}={shlex.quote(value)}")
        with contextlib.suppress(KeyboardInterrupt):
            _watch(simulated, console)


def _own_places() -> dict[str, str]:
    """Give the rehearsal a registry and runs of its own: it must not move a real alias."""
    cache = load_settings().cache_dir
    home = Path(os.environ.get("KOVAR_HOME") or "~/.kovar").expanduser() / "rehearsal"
    empty = {f"KOVAR_{name}": "" for name in _PLACES}
    return {**empty, "KOVAR_HOME": str(home), "KOVAR_CACHE_DIR": str(cache)}


def _run(command: list[str], simulated: SimulatedCluster, console: Console) -> int:
    """Run a command on the cluster, telling what its nodes do; return its exit code."""
    from kovar.simulation.processes import end_with_parent

    process = subprocess.Popen(
        command, env={**os.environ, **simulated.environment}, preexec_fn=end_with_parent
    )
    try:
        for _, lines in _events(simulated):
            for line in lines:
                console.print(line, style="dim", markup=False, soft_wrap=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_LOOK_EVERY_S)
                break
    except KeyboardInterrupt:  # which has reached the command, too
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_S)
    finally:
        _end(process)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _watch(simulated: SimulatedCluster, console: Console) -> None:
    """Show the cluster until somebody interrupts: a live view, or lines where none can be drawn."""
    from rich.live import Live

    from kovar.cli.simulation_view import view

    told: deque[str] = deque(maxlen=_EVENTS_SHOWN)
    with Live(console=console, auto_refresh=False) as live:
        for status, lines in _events(simulated):
            told.extend(lines)
            if console.is_terminal:
                live.update(view(status, simulated, list(told)), refresh=True)
            else:
                for line in lines:
                    console.print(line, markup=False, soft_wrap=True)
            time.sleep(_LOOK_EVERY_S)


def _events(simulated: SimulatedCluster) -> Iterator[tuple[ClusterStatus, list[str]]]:
    """Look again and again; yield the state and what has happened since, with the time."""
    from kovar.simulation.changes import changes

    before = None
    while True:
        status = simulated.status()
        happened = changes(before, status, idle_timeout_s=simulated.idle_timeout_s)
        yield status, [f"{datetime.now():%H:%M:%S} {line}" for line in happened]
        before = status
