"""What Serve reads from the environment: the declared clusters set all of it."""

from __future__ import annotations

import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from kovar.cli.app import app
from kovar.serving.environment import GRPC_MESSAGE_BYTES, SERVE_ENVIRONMENT, missing, prepare
from kovar.serving.spec import RequestLimits

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", ["cluster.yaml", "clusters/aws.yaml"])
@pytest.mark.parametrize("command", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_starts_with_the_settings_of_serve(path, command):
    lines = " ".join(yaml.safe_load((ROOT / path).read_text())[command])
    found = re.findall(r'(RAY_(?:SERVE|USE)_\w+)=("[^"]*"|[^ ;]+)', lines)
    assert {name: value.strip('"') for name, value in found} == SERVE_ENVIRONMENT


def test_every_pod_of_the_service_has_the_settings_of_serve():
    service = next(yaml.safe_load_all((ROOT / "clusters/kuberay/rayservice.yaml").read_text()))
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        found = {one["name"]: one.get("value") for one in container["env"]}
        assert SERVE_ENVIRONMENT.items() <= found.items()


@pytest.mark.parametrize("name", SERVE_ENVIRONMENT)
def test_ray_knows_every_variable_and_the_guide_explains_it(name):
    where = "serve._private.constants" if "SERVE" in name else "_private.async_compat"
    assert name in Path(import_module(f"ray.{where}").__file__).read_text()
    assert f"`{name}`" in (ROOT / "docs/serving.md").read_text()


def test_grpc_takes_messages_as_large_as_bodies_may_be():
    assert RequestLimits().max_body_bytes == GRPC_MESSAGE_BYTES


def test_what_is_missing_is_named():
    assert missing({}) == list(SERVE_ENVIRONMENT)
    first, *others = SERVE_ENVIRONMENT
    assert missing({first: "whatever"}) == others
    assert missing(SERVE_ENVIRONMENT) == []


def test_a_shell_takes_over_what_the_command_prints(tmp_path):
    printed = CliRunner().invoke(app, ["cluster", "env"]).output
    script = tmp_path / "env.sh"
    script.write_text(printed)
    shown = subprocess.run(
        ["/bin/sh", "-c", f". {script}; env"], env={}, capture_output=True, text=True, check=True
    )
    assert set(SERVE_ENVIRONMENT.items()) <= {
        tuple(line.split("=", 1)) for line in shown.stdout.splitlines()
    }


def test_what_is_set_already_stays():
    environment = {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "7"}
    prepare(environment)
    assert environment == SERVE_ENVIRONMENT | {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "7"}


def test_the_callback_is_one_that_the_library_has():
    module, name = SERVE_ENVIRONMENT["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].split(":")
    assert callable(getattr(import_module(module), name))
