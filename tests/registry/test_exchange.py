"""Versions as folders and archives: they come back as themselves, or a file is named."""

import json
import stat
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.numpy import save_file

from kovar.errors import (
    DamagedArtifactError,
    KovarError,
    NotFoundError,
    UnsafeArtifactError,
    UntrustedVersionError,
    UserError,
)
from kovar.registry import Registry
from kovar.registry.exchange import (
    MANIFEST_FILE,
    export_archive,
    export_folder,
    import_archive,
    import_folder,
)
from kovar.registry.signing_keys import generate_keys
from kovar.settings import load_settings


@pytest.fixture
def elsewhere(tmp_path):
    """A registry on another machine."""
    with Registry.open(load_settings({"KOVAR_HOME": str(tmp_path / "elsewhere")})) as registry:
        yield registry


@pytest.fixture
def exported(registry, version, tmp_path):
    return export_folder(registry, version, tmp_path / "exported")


@pytest.fixture
def archive(registry, version, tmp_path):
    return export_archive(registry, version, tmp_path / "reviews.kovar.zip")


def rewrite(archive, target, change):
    """Copy an archive entry by entry; `change` returns what replaces an entry."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as made:
        for info in source.infolist():
            for name, content in change(info.filename, source.read(info)):
                made.writestr(name, content)
    return target


# Folders


def test_an_exported_folder_comes_back_to_the_same_digest(exported, version, elsewhere):
    back = import_folder(elsewhere, exported)
    assert (back.digest, back.model, back.number) == (version.digest, "reviews", 1)
    assert elsewhere.verify() == []


def test_what_is_not_in_the_digest_travels_too(registry, folder, facts, tmp_path, elsewhere):
    version = registry.register(
        "reviews", folder, facts=facts, run="r1", tags={"team": "a"}, run_facts={"seconds": 1.5}
    )
    back = import_folder(elsewhere, export_folder(registry, version, tmp_path / "x"), model="mine")
    assert (back.model, back.run) == ("mine", "r1")
    assert (back.tags, back.run_facts) == ({"team": "a"}, {"seconds": 1.5})


def test_the_folder_has_a_card_that_may_be_edited(exported, version, elsewhere):
    readme = exported / "README.md"
    assert readme.read_text().startswith("---\nlibrary_name: ")
    assert version.digest in readme.read_text()
    readme.write_text("our own words")
    assert import_folder(elsewhere, exported).digest == version.digest


def test_an_exported_file_can_be_changed_without_touching_the_registry(exported, registry):
    (exported / "config.json").write_text("{}")
    assert registry.verify() == []


@pytest.mark.parametrize("kind", ["altered", "truncated", "missing", "extra"])
def test_a_tampered_folder_is_refused_by_the_name_of_the_file(exported, elsewhere, kind):
    name = "extra.json" if kind == "extra" else "model.safetensors"
    path = exported / name
    if kind == "altered":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "missing":
        path.unlink()
    else:
        path.write_text("{}")
    with pytest.raises(DamagedArtifactError, match=f"^{name}: not as its manifest says"):
        import_folder(elsewhere, exported)
    assert elsewhere.models() == ()


def test_a_changed_fact_is_refused(exported, elsewhere):
    path = exported / MANIFEST_FILE
    path.write_text(path.read_text().replace('"accuracy":0.84', '"accuracy":0.99'))
    with pytest.raises(DamagedArtifactError, match=f"{MANIFEST_FILE}: .* it hashes to"):
        import_folder(elsewhere, exported)


def test_a_manifest_of_a_newer_kovar_asks_for_an_upgrade(exported, elsewhere):
    path = exported / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "blue"}))
    with pytest.raises(KovarError, match="upgrade Kovar"):
        import_folder(elsewhere, exported)


def test_a_link_in_the_folder_is_refused(exported, elsewhere, tmp_path):
    weights = exported / "model.safetensors"
    weights.rename(tmp_path / "weights")
    weights.symlink_to(tmp_path / "weights")
    with pytest.raises(UnsafeArtifactError, match=r"model\.safetensors"):
        import_folder(elsewhere, exported)


def test_an_export_overwrites_nothing(registry, version, exported, archive):
    with pytest.raises(UserError, match="something is there already"):
        export_folder(registry, version, exported)
    with pytest.raises(UserError, match="something is there already"):
        export_archive(registry, version, archive)


def test_a_plain_hugging_face_folder_becomes_a_version(tmp_path, elsewhere):
    plain = tmp_path / "plain"
    (plain / ".cache").mkdir(parents=True)
    (plain / ".gitattributes").write_text("*.bin filter=lfs")
    config = {"id2label": {"0": "a", "1": "b", "10": "k"}, "dtype": "bfloat16"}
    (plain / "config.json").write_text(json.dumps(config))
    save_file({"w": np.zeros(1, np.float32)}, plain / "model.safetensors")
    with pytest.raises(UserError, match="--model NAME"):
        import_folder(elsewhere, plain)
    version = import_folder(elsewhere, plain, model="plain")
    assert version.manifest.signature.labels == ("a", "b", "k")
    assert (version.manifest.method, version.manifest.precision) == ("import", "bf16")
    assert import_folder(elsewhere, plain, model="plain") == version


# Archives


def test_an_archive_comes_back_to_the_same_digest(archive, version, elsewhere):
    assert import_archive(elsewhere, archive).digest == version.digest
    assert elsewhere.verify() == []


def test_equal_versions_give_equal_archives(registry, version, archive, tmp_path):
    again = export_archive(registry, version, tmp_path / "again.zip")
    assert again.read_bytes() == archive.read_bytes()


def test_an_archive_holds_files_as_they_are(archive, version):
    with zipfile.ZipFile(archive) as opened:
        names = [info.filename for info in opened.infolist()]
        kinds = {info.compress_type for info in opened.infolist()}
    assert names == [MANIFEST_FILE, *(file.path for file in version.manifest.files)]
    assert kinds == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("name", ["../escaped.json", "/escaped.json", "a/../../escaped.json"])
def test_an_entry_outside_the_archive_is_refused_and_written_nowhere(
    archive, tmp_path, elsewhere, name
):
    evil = rewrite(archive, tmp_path / "evil.zip", lambda n, c: [(n, c)])
    with zipfile.ZipFile(evil, "a") as opened:
        opened.writestr(name, "{}")
    with pytest.raises(DamagedArtifactError, match="a file that is not in the manifest") as caught:
        import_archive(elsewhere, evil)
    assert caught.value.context["path"] == name
    assert not list(tmp_path.rglob("escaped.json"))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("another content", lambda n, c: [(n, c[:-1] + b"!" if n == "config.json" else c)]),
        ("21 bytes, not 22", lambda n, c: [(n, c[:-1] if n == "config.json" else c)]),
        ("missing", lambda n, c: [] if n == "config.json" else [(n, c)]),
    ],
)
def test_a_tampered_archive_is_refused_by_the_name_of_the_file(
    archive, tmp_path, elsewhere, what, change
):
    evil = rewrite(archive, tmp_path / "evil.zip", change)
    with pytest.raises(DamagedArtifactError, match=rf"^config\.json: .*{what}"):
        import_archive(elsewhere, evil)
    assert elsewhere.models() == ()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused(archive, tmp_path, elsewhere):
    evil = rewrite(archive, tmp_path / "evil.zip", lambda n, c: [(n, c), (n, c)])
    with pytest.raises(DamagedArtifactError, match="it is there twice"):
        import_archive(elsewhere, evil)


def test_a_compressed_entry_is_refused(archive, tmp_path, elsewhere):
    evil = tmp_path / "bomb.zip"
    with zipfile.ZipFile(evil, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("model.safetensors", bytes(1_000_000))
    with pytest.raises(DamagedArtifactError, match=r"model\.safetensors: .*it is compressed"):
        import_archive(elsewhere, evil)


def test_a_link_in_an_archive_is_refused(archive, tmp_path, elsewhere):
    info = zipfile.ZipInfo("link.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(DamagedArtifactError, match="it is not a plain file"):
        import_archive(elsewhere, archive)


def test_an_archive_of_too_many_entries_or_bytes_is_refused(archive, tmp_path, elsewhere):
    with pytest.raises(UserError, match="too large"):
        import_archive(elsewhere, archive, max_bytes=1000)
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as opened:
        for number in range(10_002):
            opened.writestr(str(number), "")
    with pytest.raises(UserError, match="10,002 entries"):
        import_archive(elsewhere, many)


def test_what_is_no_archive_is_said_to_be_none(tmp_path, elsewhere):
    (tmp_path / "text.zip").write_text("text")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name in ("text.zip", "empty.zip"):
        with pytest.raises(UserError, match="not an archive of Kovar"):
            import_archive(elsewhere, tmp_path / name)
    with pytest.raises(NotFoundError, match="no such archive"):
        import_archive(elsewhere, tmp_path / "absent.zip")


@examples(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_an_archive_with_any_changed_byte_is_refused_or_the_same(
    archive, version, tmp_path, elsewhere, data
):
    content = bytearray(archive.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "changed.zip").write_bytes(content)
    try:
        assert import_archive(elsewhere, tmp_path / "changed.zip").digest == version.digest
    except KovarError:
        assert elsewhere.verify() == []


# Signatures


def test_signatures_travel_and_are_checked_before_anything_is_registered(
    settings, registry, version, folder, facts, tmp_path
):
    key, away = tmp_path / "key", load_settings({"KOVAR_HOME": str(tmp_path / "away")})
    trusting = away.model_copy(update={"trusted_keys": (generate_keys(key),)})
    unsigned = export_archive(registry, version, tmp_path / "unsigned.zip")
    with Registry.open(settings.model_copy(update={"signing_key": key})) as signing:
        signing.register("reviews", folder, facts=facts)
        signed = export_archive(signing, version, tmp_path / "signed.zip")
    with Registry.open(trusting) as elsewhere:
        with pytest.raises(UntrustedVersionError, match=r"reviews .* is not signed"):
            import_archive(elsewhere, unsigned)
        assert elsewhere.models() == ()
        elsewhere.materialize(import_archive(elsewhere, signed))
