"""Whoever starts work is refused with the same words that `kovar plan` uses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from kovar.errors import PlacementError, UserError, exit_code_of
from kovar.planning import plan_specs
from kovar.resources import live_cluster
from kovar.serving import build
from kovar.settings import load_settings
from tiny_run import run_spec, write_spec
from tiny_version import build_tiny_version, environment_of, register_tiny_version, settings_in

REPOSITORY = Path(__file__).parents[2]
FOUR_A100 = {"worker": {"kind": "gpu", "type": "A100", "count": 4}}
SWEEP = """\
kind: sweep
name: rates
base: spec.yaml
search:
  training.learning_rate: {kind: grid, values: [1.0e-5, 2.0e-5]}
"""
SERVE = """\
applications:
  - import_path: kovar.serving.app:build
    args: {model: tiny, replica: {kind: gpu, type: A100}}
"""


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def settings(tmp_path, monkeypatch):
    settings = settings_in(tmp_path)
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    return settings


def planned(path: Path, **cluster) -> str:
    with pytest.raises(UserError) as refusal:
        plan_specs([path], settings=load_settings(), **cluster)
    return str(refusal.value)


def test_a_job_is_refused_as_it_is_planned(tmp_path, settings, capsys):
    path = write_spec(tmp_path, resources=FOUR_A100)
    assert exit_code_of(lambda: script("jobs/finetune.py").main([str(path)])) == 2
    assert planned(path) in capsys.readouterr().err


def test_a_sweep_is_refused_as_it_is_planned(tmp_path, settings, capsys):
    write_spec(tmp_path, resources=FOUR_A100)
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    assert exit_code_of(lambda: script("tune/sweep.py").main([str(path)])) == 2
    assert planned(path) in capsys.readouterr().err


@pytest.mark.ray
def test_an_application_is_refused_as_it_is_planned(ray_session, tmp_path, settings):
    register_tiny_version(settings, build_tiny_version(tmp_path / "tiny"))
    path = tmp_path / "serve.yaml"
    path.write_text(SERVE)
    args = {"model": "tiny", "replica": {"kind": "gpu", "type": "A100"}}
    with pytest.raises(PlacementError) as refusal:
        build(args)
    assert refusal.value.message in planned(path, cluster=live_cluster())
    assert build({**args, "plan": False})


def test_memory_that_cannot_suffice_is_refused_alike(tmp_path, settings, capsys):
    path = write_spec(tmp_path, resources={"worker": {"kind": "cpu", "memory": "300MiB"}})
    assert exit_code_of(lambda: script("jobs/finetune.py").main([str(path)])) == 2
    message = capsys.readouterr().err
    assert planned(path) in message
    assert "resources.worker.memory" in message


def test_without_a_plan_a_job_asks_for_what_is_written(tmp_path, settings):
    path = write_spec(tmp_path, resources={"worker": {"kind": "cpu", "memory": "300MiB"}})
    result = run_spec(path, settings, planned=False)
    plan = json.loads(result.folder.plan.read_text())
    assert plan["placement"] is None
    assert plan["request"]["memory"] == 300 << 20
