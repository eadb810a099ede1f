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


def test_the_ports_of_proxy_and_replica_open_to_a_key_alone(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(SCRIPT.parents[1] / "platform"), str(SCRIPT.parent)])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(port)],
        env=os.environ | {"PYTHONPATH": path, "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])["told"]
    assert told == [[401, 200], [401, 200]]
