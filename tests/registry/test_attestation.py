"""What was derived from a version is attested by a trusted key, or not loaded."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from kovar.errors import DamagedArtifactError, UntrustedVersionError
from kovar.registry import GoldenResult, Registry
from kovar.registry.schema import derived_artifacts
from kovar.registry.signing import VersionSignature
from kovar.registry.signing_keys import Signer, generate_keys
from kovar.settings import load_settings

GOLDEN = GoldenResult(runtime="onnx", chip="a CPU", passed=True, difference=0.0, tolerance=0.001)


@pytest.fixture
def settings(tmp_path):
    return load_settings({"KOVAR_HOME": str(tmp_path / "home")})


@pytest.fixture
def keys(tmp_path) -> dict[str, Path]:
    for name in ("ada", "eve"):
        generate_keys(tmp_path / "keys" / name)
    return {path.name: path for path in (tmp_path / "keys").iterdir()}


@pytest.fixture
def export(tmp_path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "notes.json").write_text("{}")
    return folder


@pytest.fixture
def derive(settings, version, export):
    def derive(signing_key: Path | None = None, **settings_of_export):
        with Registry.open(settings.model_copy(update={"signing_key": signing_key})) as registry:
            return registry.derive(
                version,
                export,
                kind="onnx",
                runtime="onnx",
                settings=settings_of_export,
                golden=GOLDEN,
                created_by="ada",
            )

    return derive


@pytest.fixture
def trusting(settings, keys):
    with Registry.open(settings.model_copy(update={"trusted_keys": (keys["ada.pub"],)})) as opened:
        yield opened


def attestation_of(settings, artifact) -> Path:
    (path,) = Path(settings.artifact_root, "signatures", "derived", artifact.digest).iterdir()
    return path


def test_what_a_trusted_key_attests_is_loaded(trusting, derive, keys):
    assert (trusting.materialize_derived(derive(keys["ada"])) / "notes.json").exists()


def test_an_attestation_says_who_made_what_with_what_and_how_it_was_measured(
    trusting, derive, keys, version
):
    made = derive(keys["ada"], accuracy={"export": 0.9})
    (attestation,) = trusting.attestations(made)
    stated = attestation.stated
    assert stated.manifest.version == version.digest
    assert stated.manifest == made.manifest
    assert (stated.made_by, stated.golden) == ("ada", GOLDEN)
    assert "kovar-platform" in stated.made_with


def test_what_nobody_attests_is_refused_where_a_key_is_trusted(trusting, derive, registry):
    made = derive()
    assert registry.materialize_derived(made).is_dir()
    with pytest.raises(UntrustedVersionError, match=r"onnx artifact of reviews@1 .* is not signed"):
        trusting.materialize_derived(made)


def test_what_a_stranger_attests_is_refused(trusting, derive, keys):
    with pytest.raises(UntrustedVersionError, match="keys that are not trusted"):
        trusting.materialize_derived(derive(keys["eve"]))


def test_measurements_cannot_be_changed_under_a_signature(trusting, derive, keys, settings):
    made = derive(keys["ada"])
    path = attestation_of(settings, made)
    content = json.loads(path.read_text())
    content["statement"] = content["statement"].replace('"passed":true', '"passed":false')
    path.write_text(json.dumps(content))
    with pytest.raises(UntrustedVersionError, match="wrongly signed"):
        trusting.materialize_derived(made)


def test_an_attestation_of_another_artifact_does_not_count(trusting, derive, keys, settings):
    honest, swapped = derive(keys["ada"]), derive(None, precision="fp32")
    path = attestation_of(settings, honest)
    copy = path.parent.with_name(swapped.digest) / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    with pytest.raises(UntrustedVersionError, match="is not signed"):
        trusting.materialize_derived(swapped)


def test_a_signature_for_a_version_attests_nothing(trusting, derive, keys, settings):
    made = derive()
    signature = VersionSignature.by(Signer.read(keys["ada"]), made.digest)
    path = Path(settings.artifact_root, "signatures", "derived", made.digest, "x.json")
    path.parent.mkdir(parents=True)
    path.with_name(f"{signature.key_id}.json").write_text(signature.model_dump_json())
    with pytest.raises(UntrustedVersionError, match="is not signed"):
        trusting.materialize_derived(made)


def test_deriving_again_adds_the_attestation_of_a_second_person(trusting, derive, keys):
    derive(keys["ada"])
    made = derive(keys["eve"])
    assert len(trusting.attestations(made)) == 2
    trusting.check_derived(made)


def test_who_cannot_attest_is_told_before_the_work(trusting, settings, keys):
    with pytest.raises(UntrustedVersionError, match="no `signing_key` here"):
        trusting.check_can_attest(name="the export")
    strange = {"signing_key": keys["eve"], "trusted_keys": (keys["ada.pub"],)}
    with (
        Registry.open(settings.model_copy(update=strange)) as registry,
        pytest.raises(UntrustedVersionError, match="`signing_key` that is not trusted"),
    ):
        registry.check_can_attest(name="the export")


def test_a_manifest_swapped_in_the_database_is_damage(derive, registry, version):
    made = derive()
    other = made.manifest.model_copy(update={"chip": "another"}).to_bytes().decode()
    with registry._database.writing() as connection:
        connection.execute(sa.update(derived_artifacts).values(manifest=other))
    with pytest.raises(DamagedArtifactError, match="does not match its digest"):
        registry.derived(version)
    assert [problem.kind for problem in registry.verify(version)] == ["manifest"]
