"""`serve deploy` and `serve run` with the file that we ship, on a real head."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from kovar.settings import load_settings
from ray_head import REPOSITORY, free_ports
from tiny_version import build_tiny_version, register_tiny_version

pytestmark = pytest.mark.cluster

SHIPPED = REPOSITORY / "serve" / "movie-sentiment.yaml"
PATIENCE_S = 120


@pytest.fixture(scope="module")
def version(ray_head, tmp_path_factory):
    folder = build_tiny_version(tmp_path_factory.mktemp("deployed") / "tiny")
    settings = load_settings(ray_head.environment)
    return register_tiny_version(settings, folder, model="movie-sentiment")


def on_a_free_port(folder: Path) -> tuple[Path, str]:
    """Copy the shipped file with another port, since this machine may use 8000."""
    (port,) = free_ports(1)
    text = SHIPPED.read_text()
    assert "port: 8000" in text
    path = folder / "serve.yaml"
    path.write_text(text.replace("port: 8000", f"port: {port}"))
    return path, f"http://127.0.0.1:{port}"


def wait_until_ready(url: str, *, pause: Callable[[float], object]) -> None:
    for _ in range(PATIENCE_S * 2):
        try:
            if httpx.get(f"{url}/v2/health/ready", timeout=2).is_success:
                return
        except httpx.HTTPError:
            pass
        pause(0.5)
    raise AssertionError(f"{url} is not ready after {PATIENCE_S} s")


def check_answer(url: str, version) -> None:
    response = httpx.post(f"{url}/v1/predict", json={"inputs": ["i loved it"]}, timeout=30)
    assert response.status_code == 200
    assert response.json()["digest"] == response.headers["x-kovar-digest"] == version.digest


def test_the_shipped_file_deploys_the_champion(ray_head, version, tmp_path):
    from threading import Event

    path, url = on_a_free_port(tmp_path)
    deployed = ray_head.run("serve", "deploy", str(path), "--address", ray_head.dashboard)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    wait_until_ready(url, pause=Event().wait)
    check_answer(url, version)
    down = ray_head.run("serve", "shutdown", "-y", "--address", ray_head.dashboard)
    assert down.returncode == 0


def test_the_shipped_file_runs_in_the_foreground_on_a_ray_of_its_own(ray_head, version, tmp_path):
    from threading import Event

    path, url = on_a_free_port(tmp_path)
    environment = {k: v for k, v in ray_head.environment.items() if k != "RAY_ADDRESS"}
    command = [str(Path(sys.executable).with_name("serve")), "run", str(path), "--address", "local"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until_ready(url, pause=Event().wait)
            check_answer(url, version)
        finally:
            process.terminate()
            process.wait(timeout=60)
