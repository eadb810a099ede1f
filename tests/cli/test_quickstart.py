"""`kovar quickstart`: plan, train, register, serve, ask over HTTP, and leave nothing running."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from kovar.registry import Registry
from tiny_run import write_spec
from tiny_version import settings_in

pytestmark = pytest.mark.cluster

TWO_WORKERS = {"num_workers": 2, "worker": {"kind": "cpu", "cpus": 1}}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick")
    write_spec(folder, resources=TWO_WORKERS)
    return folder


def command(home, *options):
    return [
        sys.executable,
        "-m",
        "kovar",
        "quickstart",
        "--spec",
        str(home / "spec.yaml"),
        *options,
    ]


def environment(home):
    return os.environ | {"KOVAR_HOME": str(home), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}


def processes_of(home):
    """List the processes, Ray's own included, that were started with this home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes()
        except OSError:
            continue
        if f"KOVAR_HOME={home}".encode() in variables:
            found.append((process / "cmdline").read_bytes())
    return found


@pytest.fixture(scope="module")
def first(home):
    return subprocess.run(
        command(home), env=environment(home), capture_output=True, text=True, check=False
    )


def test_it_prints_the_answers_with_the_digest_the_run_and_what_to_try_next(home, first):
    assert first.returncode == 0, first.stdout + first.stderr
    with Registry.open(settings_in(home)) as registry:
        version = registry.resolve("tiny@champion")
    run = home / "runs" / version.run
    assert f"x-kovar-digest: {version.digest}" in first.stdout
    assert "A tedious and predictable mess." in first.stdout
    assert str(run / "learning-curve.png") in first.stdout
    assert (run / "learning-curve.png").exists()
    for hint in ("ray job submit", "tune/sweep.py", "serve deploy", "tensorboard --logdir"):
        assert hint in first.stdout


def test_it_leaves_nothing_running(home, first):
    assert first.returncode == 0
    assert processes_of(home) == []


def test_a_second_run_trains_nothing_and_serves_until_it_is_interrupted(home, first):
    with subprocess.Popen(
        command(home, "--keep-serving"),
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if served := re.search(r"serving on (http://127\.0\.0\.1:\d+)", line):
                answer = httpx.post(
                    f"{served[1]}/v1/predict", json={"inputs": ["the film is good"]}
                )
                process.send_signal(signal.SIGINT)
                break
        lines += list(process.stdout)
    output = "".join(lines)
    assert process.returncode == 0, output
    assert "(finished before)" in output
    assert "training" not in output
    assert answer.json()["predictions"][0]["label"] == "positive"
    assert processes_of(home) == []


def test_what_the_endpoint_served_is_what_the_run_registered(home, first):
    (run,) = (home / "runs").glob("tiny-*")
    result = json.loads((run / "result.json").read_text())
    assert f"x-kovar-digest: {result['digest']}" in first.stdout
