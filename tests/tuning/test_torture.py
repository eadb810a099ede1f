"""Trials, a node and the driver of a sweep are killed; nothing is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]
SMALL = {"trials": 3, "steps": 40, "kill-trials": 1, "kill-nodes": 1, "kill-drivers": 1}


def test_a_sweep_survives_the_death_of_trials_nodes_and_drivers(tmp_path):
    options = [text for name, value in SMALL.items() for text in (f"--{name}", str(value))]
    script = REPOSITORY / "benchmarks" / "sweep_torture.py"
    done = subprocess.run(
        [sys.executable, str(script), *options, "--output", str(tmp_path / "found.json")],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "platform")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["killed"] == {"trial": 1, "node": 1, "driver": 1}
    assert (found["trials"], found["lost"], found["drivers"]) == (3, 0, 2)
    assert found["same_metrics"]
    assert found["same_best"]
