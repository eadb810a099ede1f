"""Signed by a trusted key, or refused: unsigned, wrongly signed, signed by a stranger."""

import json
from pathlib import Path

import pytest

from kovar.errors import SettingsError, UntrustedVersionError, UserError
from kovar.registry import Registry
from kovar.registry.signing import VersionSignature
from kovar.registry.signing_keys import Signer, Trust, generate_keys


@pytest.fixture
def keys(tmp_path) -> dict[str, Path]:
    for name in ("ada", "eve"):
        generate_keys(tmp_path / "keys" / name)
    return {path.name: path for path in (tmp_path / "keys").iterdir()}


@pytest.fixture
def opened(settings):
    """Open the registry with some keys: `opened(signing_key=…)`."""
    open_ones = []

    def opened(**fields) -> Registry:
        open_ones.append(Registry.open(settings.model_copy(update=fields)))
        return open_ones[-1]

    yield opened
    for registry in open_ones:
        registry.close()


def test_a_signed_version_is_loaded_where_its_signer_is_trusted(opened, keys, folder, facts):
    version = opened(signing_key=keys["ada"]).register("reviews", folder, facts=facts)
    trusting = opened(trusted_keys=(keys["ada.pub"],))
    assert (trusting.materialize(version) / "config.json").exists()


def test_a_folder_of_keys_is_trusted_as_a_whole(opened, keys, folder, facts, tmp_path):
    version = opened(signing_key=keys["eve"]).register("reviews", folder, facts=facts)
    opened(trusted_keys=(tmp_path / "keys",)).materialize(version)


def test_an_unsigned_version_is_refused_where_a_key_is_trusted(opened, keys, version):
    with pytest.raises(UntrustedVersionError, match=r"reviews@1 .* is not signed"):
        opened(trusted_keys=(keys["ada.pub"],)).materialize(version)


def test_a_version_signed_by_a_stranger_is_refused(opened, keys, folder, facts):
    version = opened(signing_key=keys["eve"]).register("reviews", folder, facts=facts)
    with pytest.raises(UntrustedVersionError, match="keys that are not trusted"):
        opened(trusted_keys=(keys["ada.pub"],)).materialize(version)


def test_a_copy_that_is_cached_already_is_refused_too(opened, keys, version, registry):
    registry.materialize(version)
    with pytest.raises(UntrustedVersionError):
        opened(trusted_keys=(keys["ada.pub"],)).materialize(version)


@pytest.mark.parametrize("field", ["signature", "key_id"])
def test_a_forged_signature_is_refused(opened, keys, folder, facts, settings, field):
    version = opened(signing_key=keys["eve"]).register("reviews", folder, facts=facts)
    (path,) = Path(settings.artifact_root, "signatures", version.digest).iterdir()
    ada = Signer.read(keys["ada"]).key_id
    forged = json.loads(path.read_text())
    forged[field] = "ab" * 64 if field == "signature" else ada
    path.rename(path.with_name(f"{forged['key_id']}.json")).write_text(json.dumps(forged))
    trusted = keys["eve.pub" if field == "signature" else "ada.pub"]
    with pytest.raises(UntrustedVersionError, match="wrongly signed"):
        opened(trusted_keys=(trusted,)).materialize(version)


def test_a_signature_of_another_version_does_not_count(opened, keys, three, settings):
    signature = VersionSignature.by(Signer.read(keys["ada"]), three[0].digest)
    path = Path(settings.artifact_root, "signatures", three[1].digest, f"{signature.key_id}.json")
    path.parent.mkdir(parents=True)
    path.write_text(signature.model_dump_json())
    with pytest.raises(UntrustedVersionError, match="is not signed"):
        opened(trusted_keys=(keys["ada.pub"],)).materialize(three[1])


def test_registering_again_adds_the_signature_of_a_second_person(opened, keys, folder, facts):
    opened(signing_key=keys["ada"]).register("reviews", folder, facts=facts)
    second = opened(signing_key=keys["eve"])
    version = second.register("reviews", folder, facts=facts)
    assert len({signature.key_id for signature in second.signatures(version)}) == 2


def test_a_private_key_that_others_can_read_is_refused(opened, keys):
    keys["ada"].chmod(0o640)
    with pytest.raises(SettingsError, match=r"signing_key: .*mode 0640(.|\n)*chmod 600"):
        opened(signing_key=keys["ada"])


@pytest.mark.parametrize("content", [None, b"", b"not a key"])
def test_a_key_that_cannot_be_used_is_named(tmp_path, content):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(SettingsError, match="the key cannot be used"):
        Signer.read(path)
    with pytest.raises(SettingsError, match="the key cannot be used"):
        Trust.read([path])


def test_a_folder_without_keys_trusts_no_one_and_says_so(tmp_path):
    with pytest.raises(SettingsError, match=r"no \*\.pub file"):
        Trust.read([tmp_path])


def test_a_new_key_is_private_and_overwrites_nothing(keys):
    assert keys["ada"].stat().st_mode & 0o777 == 0o600
    before = keys["ada"].read_bytes()
    with pytest.raises(UserError, match="exists already"):
        generate_keys(keys["ada"])
    keys["ada.pub"].unlink()
    with pytest.raises(UserError, match="exists already"):
        generate_keys(keys["ada"])
    assert keys["ada"].read_bytes() == before
