"""Replicas that listen themselves, as behind HAProxy, ask for keys at their own ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "direct_ingress.py"

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("switch", ["RAY_SERVE_ENABLE_DIRECT_INGRESS", "RAY_SERVE_ENABLE_HA_PROXY"])
def test_the_ports_of_proxy_and_replica_open_to_a_key_alone(tmp_path, switch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(SCRIPT.parents[1] / "platform"), str(SCRIPT.parent)])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(port), switch],
        env=os.environ | {"PYTHONPATH": path, switch: "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith('{"told"'))
    told = json.loads(line)["told"]
    assert told == [[401, 200], [401, 200]]
