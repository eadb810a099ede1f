import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kovar.simulation.processes import descendants

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
COMMAND = (
    *(
        sys.executable,
        "-c",
        "import typer; from kovar.cli.simulation import local; typer.run(local)",
    ),
    *("--nodes", str(ROOT / "clusters" / "local.yaml"), "--no-dashboard", "--"),
    *(sys.executable, "-c"),
)
WORK = """
import logging, ray, sys
ray.init(logging_level=logging.ERROR, log_to_driver=False)
@ray.remote(num_gpus=4)
def four_cards():
    return 3
sys.exit(ray.get(four_cards.remote()))
"""
LASTS = "print('running', flush=True); import signal; signal.pause()"


def test_a_command_runs_on_it_and_its_code_is_returned(tmp_path):
    done = subprocess.run(
        [*COMMAND, WORK],
        env={**os.environ, "KOVAR_HOME": str(tmp_path), "RAY_SCHEDULER_EVENTS": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "It proves scheduling and recovery, never speed" in done.stderr
    assert "gpu-a100-1 is up: CPU: 48, GPU: 4, memory: 236.0 GiB" in done.stderr
    assert done.stdout == ""


def test_nothing_outlives_it_however_it_dies(tmp_path):
    with subprocess.Popen(
        [*COMMAND, LASTS],
        env={**os.environ, "KOVAR_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as simulation:
        assert simulation.stdout is not None
        assert simulation.stdout.readline() == "running\n"
        started = {pid: os.pidfd_open(pid) for pid in descendants(simulation.pid)}
        simulation.send_signal(signal.SIGKILL)
    assert len(started) > 5
    for ended in started.values():
        signal_of_end, _, _ = select.select([ended], [], [], 60)
        assert signal_of_end
        os.close(ended)
