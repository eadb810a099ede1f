"""What an application binds, and what its replicas execute."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from in_process import send
from kovar.errors import DamagedArtifactError, SpecError, UntrustedVersionError
from kovar.inference import ExportForm
from kovar.inference.exports.form import EXPORT_KIND, Accuracy, settings_of
from kovar.registry import FileEntry, Registry
from kovar.registry.signing_keys import generate_keys
from kovar.serving import build, read_args
from kovar.serving.export_job import Attempt, export_version
from kovar.serving.exported import bound_exports
from kovar.serving.replica import Replica
from kovar.serving.spec import ServingSpec
from kovar.serving.versions import BoundVersion
from tiny_export import ExportedVersion
from tiny_version import environment_of, register_tiny_version, settings_in

FILE = FileEntry(path="model.onnx", size_bytes=1, sha256="0" * 64)
ONNX = ServingSpec(model="tiny", runtime="onnx", precision="fp32")


@pytest.fixture(scope="module")
def bound(exported):
    with Registry.open(exported.settings) as registry:
        return bound_exports(ONNX, exported.version, registry, exported.settings)


def start(spec: ServingSpec, exported: ExportedVersion, exports) -> Replica:
    return Replica(
        spec,
        [BoundVersion(exported.version, exports=tuple(exports))],
        artifact_root=exported.settings.artifact_root,
        cache_dir=exported.settings.cache_dir,
    )


def test_an_export_that_the_spec_needs_is_there_once_the_application_is_built(exported, bound):
    assert exported.export.manifest in bound


def test_a_replica_fetches_the_export_and_executes_it(exported, bound):
    replica = start(ONNX, exported, bound)
    runtime = replica._runner.runtime
    assert (runtime.name, runtime.precision) == ("onnx", "fp32")
    assert "as asked" in runtime.reason
    replica.check_health()


def test_the_metadata_of_a_model_say_why_its_runtime_was_taken(exported, bound):
    app = start(ONNX, exported, bound).__serve_build_asgi_app__()
    parameters = asyncio.run(send(app, "GET", "/v2/models/tiny")).json()["parameters"]
    assert parameters["runtime_reason"].startswith("onnx fp32: as asked")


def test_auto_measures_once_and_remembers(exported, bound):
    spec = ServingSpec(model="tiny", precision="fp32")
    first = start(spec, exported, bound)._runner.runtime
    (kept,) = (exported.settings.cache_dir / "measurements").glob("*.json")
    kept.write_text('{"onnx fp32": 9.0, "torch fp32": 7.0, "openvino fp32": 8.0}')
    second = start(spec, exported, bound)._runner.runtime
    assert "texts/s against" in first.reason
    assert second.reason.startswith("onnx fp32: 9 texts/s against openvino fp32 8, torch fp32 7")


def test_a_damaged_export_is_left_out_unless_its_runtime_was_asked_for(exported, bound, tmp_path):
    damaged = [bound[0].model_copy(update={"files": (FILE,)})]
    runtime = start(ServingSpec(model="tiny", precision="fp32"), exported, damaged)._runner.runtime
    assert runtime.name == "torch"
    assert runtime.reason.endswith("left out: export fp32 (damaged)")
    assert runtime.left_out == ("export fp32",)
    with pytest.raises(DamagedArtifactError):
        start(ONNX, exported, damaged)


def test_an_export_that_loses_too_much_is_refused_before_replicas_start(tmp_path, exported):
    settings = settings_in(tmp_path)
    version = register_tiny_version(settings, exported.folder)
    form = ExportForm("int8", "dynamic")
    accuracy = Accuracy(metric="accuracy", reference=0.9, export=0.8, num_rows=100)
    spec = ServingSpec(model="tiny", runtime="onnx", precision="int8")
    with Registry.open(settings) as registry:
        facts = settings_of(form, accuracy=accuracy)
        folder = exported.export.folder
        registry.derive(version, folder, kind=EXPORT_KIND, runtime="onnx", settings=facts)
        with pytest.raises(SpecError, match=r"loses 0\.1000") as refusal:
            bound_exports(spec, version, registry, settings)
        assert refusal.value.field == "max_accuracy_loss"
        lax = spec.model_copy(update={"max_accuracy_loss": 0.2})
        assert len(bound_exports(lax, version, registry, settings)) == 1


def test_an_export_that_no_trusted_key_attests_is_not_bound(exported, tmp_path, caplog):
    key = generate_keys(tmp_path / "key")
    trusting = exported.settings.model_copy(update={"trusted_keys": (key,)})
    with Registry.open(trusting) as registry:
        auto = ServingSpec(model="tiny", precision="fp32")
        assert bound_exports(auto, exported.version, registry, trusting) == ()
        assert "an export is left out: the onnx artifact of tiny@1" in caplog.text
        with pytest.raises(UntrustedVersionError, match="fp32 export of tiny@1 would not be"):
            bound_exports(ONNX, exported.version, registry, trusting)


def test_torch_binds_no_exports(exported):
    with Registry.open(exported.settings) as registry:
        spec = ServingSpec(model="tiny", runtime="torch")
        assert bound_exports(spec, exported.version, registry, exported.settings) == ()


def test_an_application_binds_the_exports_that_there_are(exported, monkeypatch):
    for name, value in environment_of(exported.settings).items():
        monkeypatch.setenv(name, value)
    application = build({"model": "tiny"})
    assert exported.export.manifest in application._bound_deployment.init_args[1][0].exports


def test_the_onnx_runtime_loads_without_torch(exported):
    code = (
        "import sys; from pathlib import Path; from kovar.inference import Export, load_runtime\n"
        "from kovar.registry import Registry; from kovar.settings import load_settings\n"
        "with Registry.open(load_settings()) as registry:\n"
        "    version = registry.version('tiny', 1)\n"
        "    artifact = registry.derived(version)[0]\n"
        "    export = Export(artifact.manifest, registry.materialize_derived(artifact))\n"
        "    runtime = load_runtime(registry.materialize(version), runtime='onnx',\n"
        "                           exports=[export], require_golden=True)\n"
        "print(runtime.predict(['fine'])[0].label, 'torch' in sys.modules)"
    )
    environment = environment_of(exported.settings) | {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split()[1] == "False"


def test_the_job_says_what_it_made_and_what_a_replica_would_take(exported):
    with Registry.open(exported.settings) as registry:
        spec = ServingSpec(model="tiny", precision="fp32")
        result = export_version(
            spec, registry=registry, settings=exported.settings, base_dir=exported.rows
        )
    (attempt,) = result.attempts
    assert attempt.export.manifest == exported.export.manifest
    assert "texts/s against" in result.reason
    assert result.to_json()["exports"][0]["golden_difference"] < 1e-5


def test_the_job_makes_a_damaged_export_again_and_tries_what_had_failed(tmp_path, exported):
    settings = settings_in(tmp_path)
    version = register_tiny_version(settings, exported.folder)
    spec = ServingSpec(model="tiny", precision="fp32")
    with Registry.open(settings) as registry:
        made = partial(
            export_version, spec, registry=registry, settings=settings, base_dir=tmp_path
        )
        made()
        (measured,) = (settings.cache_dir / "measurements").glob("*.json")
        measured.write_text('{"onnx fp32": 0.0, "torch fp32": 7.0, "openvino fp32": 0.0}')
        (artifact,) = registry.derived(version)
        sha256 = artifact.manifest.files[0].sha256
        (blob,) = Path(settings.artifact_root).rglob(sha256)
        blob.unlink()
        assert "left out" not in made().reason
        assert registry.verify(version) == []


def test_the_job_says_what_was_refused():
    refusal = SpecError("it loses 0.04", field="max_accuracy_loss")
    attempt = Attempt(ExportForm("int8", "static"), None, None, refusal)
    assert attempt.to_json() == {
        "export": "int8-static",
        "refused": "max_accuracy_loss: it loses 0.04",
    }


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
