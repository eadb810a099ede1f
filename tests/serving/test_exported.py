"""What an application binds, and what its replicas execute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kovar.errors import SpecError
from kovar.inference import ExportForm
from kovar.registry import Registry, Version
from kovar.serving import build, read_args
from kovar.serving.export_job import export_version
from kovar.serving.exported import bound_exports
from kovar.serving.replica import Replica
from kovar.serving.spec import ServingSpec
from kovar.serving.versions import BoundVersion
from kovar.settings import Settings
from tiny_version import build_tiny_version, environment_of, register_tiny_version, settings_in

ONNX = ServingSpec(model="tiny", runtime="onnx")


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return settings_in(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def version(settings, tmp_path_factory) -> Version:
    folder = build_tiny_version(tmp_path_factory.mktemp("version") / "tiny")
    return register_tiny_version(settings, folder)


@pytest.fixture(scope="module")
def bound(settings, version):
    with Registry.open(settings) as registry:
        return bound_exports(ONNX, version, registry, settings)


def start(spec, version, settings, exports) -> Replica:
    return Replica(
        spec,
        [BoundVersion(version, exports=tuple(exports))],
        artifact_root=settings.artifact_root,
        cache_dir=settings.cache_dir,
    )


def test_an_export_that_the_spec_needs_is_made_when_the_application_is_built(bound):
    (manifest,) = bound
    assert manifest.settings["precision"] == "fp32"


def test_a_replica_executes_the_export_without_the_database(settings, version, bound):
    replica = start(ONNX, version, settings, bound)
    runtime = replica._runner.runtime
    assert (runtime.name, runtime.precision) == ("onnx", "fp32")
    assert "as asked" in runtime.reason
    replica.check_health()


def test_auto_measures_once_and_remembers(settings, version, bound):
    spec = ServingSpec(model="tiny", precision="fp32")
    first = start(spec, version, settings, bound)._runner.runtime
    (kept,) = (settings.cache_dir / "measurements").glob("*.json")
    kept.write_text('{"onnx fp32": 9.0, "torch fp32": 7.0, "openvino fp32": 8.0}')
    second = start(spec, version, settings, bound)._runner.runtime
    assert "texts/s against" in first.reason
    assert second.reason.startswith("onnx fp32: 9 texts/s against openvino fp32 8, torch fp32 7")


def test_torch_binds_no_exports(settings, version):
    with Registry.open(settings) as registry:
        spec = ServingSpec(model="tiny", runtime="torch")
        assert bound_exports(spec, version, registry, settings) == ()


def test_an_application_binds_the_exports_that_there_are(settings, version, bound, monkeypatch):
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    application = build({"model": "tiny"})
    assert application._bound_deployment.init_args[1][0].exports == bound


def test_the_onnx_runtime_loads_without_torch(settings, version, bound):
    code = (
        "import sys; from pathlib import Path; from kovar.inference import Export, load_runtime\n"
        "from kovar.registry import Registry; from kovar.settings import load_settings\n"
        "with Registry.open(load_settings()) as registry:\n"
        "    version = registry.version('tiny', 1)\n"
        "    (artifact,) = registry.derived(version)\n"
        "    export = Export(artifact.manifest, registry.materialize_derived(artifact))\n"
        "    runtime = load_runtime(registry.materialize(version), runtime='onnx',\n"
        "                           exports=[export], require_golden=True)\n"
        "print(runtime.predict(['fine'])[0].label, 'torch' in sys.modules)"
    )
    environment = environment_of(settings) | {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split()[1] == "False"


def test_the_job_exports_what_it_can_and_says_why_not_the_rest(settings, version, bound):
    with Registry.open(settings) as registry:
        spec = ServingSpec(model="tiny")
        result = export_version(spec, registry=registry, settings=settings, base_dir=Path())
    found = {str(one.form): one for one in result.attempts}
    assert found["fp32"].export is not None
    assert found["fp32"].artifact.manifest == bound[0]
    assert "which labeled texts" in str(found["int8-dynamic"].refusal)
    assert "texts/s against" in result.reason
    assert result.to_json()["exports"][0]["golden_difference"] < 1e-5


@pytest.mark.parametrize(
    ("args", "field", "message"),
    [
        ({"runtime": "torch", "precision": "int8"}, None, "computed by exports"),
        ({"runtime": "onnx", "compile": True}, None, "belongs to runtime: torch"),
        ({"max_accuracy_loss": 1.5}, "max_accuracy_loss", "1"),
    ],
)
def test_a_mistake_in_what_is_wished_is_refused(args, field, message):
    with pytest.raises(SpecError, match=message) as refusal:
        read_args({"model": "tiny", **args})
    assert field is None or refusal.value.field == field


def test_forms_have_names():
    assert str(ExportForm.of("int8-static")) == "int8-static"
    assert ExportForm.of("fp16") == ExportForm("fp16")
