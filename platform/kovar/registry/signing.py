"""Signatures over versions: Ed25519 (RFC 8032) on the digest, which covers facts and files.

A signature is a small JSON object beside the blobs, `signatures/<digest>/<key id>.json`: one per
key, so two people who sign at once overwrite nothing. Needs the extra `signing`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, ValidationError

from kovar.config import Config, canonical_json
from kovar.errors import MissingExtraError, SettingsError, UntrustedVersionError, UserError
from kovar.registry.artifacts import ArtifactStore
from kovar.registry.manifest import Sha256
from kovar.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

FOLDER: Final = "signatures"
PUBLIC_SUFFIX: Final = ".pub"
# Separates these signatures from all others that the same key may make.
_PURPOSE: Final = b"kovar-version-v1\0"


class VersionSignature(Config):
    """One signature over one version."""

    format: Literal[1] = Field(description="format of this object")
    algorithm: Literal["ed25519"] = Field(description="algorithm of the signature")
    digest: Sha256 = Field(description="digest of the version")
    key_id: Sha256 = Field(description="SHA-256 of the raw public key")
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")] = Field(
        description="the signature, in hexadecimal"
    )

    @property
    def path(self) -> str:
        """Path below the artifact root."""
        return f"{FOLDER}/{self.digest}/{self.key_id}.json"


class Signer:
    """A private key.

    Args:
        key: the key.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id_of(key.public_key())

    @classmethod
    def read(cls, path: Path) -> Signer:
        """Read a private key in PEM.

        Raises:
            SettingsError: missing, readable by others, or not an Ed25519 key without password.
            MissingExtraError: `cryptography` is not installed.
        """
        serialization, ed25519 = _cryptography()
        try:
            mode = path.stat().st_mode
            content = path.read_bytes()
        except OSError as problem:
            raise _unreadable_key("signing_key", path, problem.strerror or str(problem)) from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsError(
                f"the private key can be used by others (mode {stat.S_IMODE(mode):04o})",
                field="signing_key",
                got=str(path),
                hint=f"chmod 600 {path}",
            )
        try:
            key = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError) as problem:
            raise _unreadable_key("signing_key", path, str(problem)) from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise _unreadable_key("signing_key", path, "not an Ed25519 key")
        return cls(key)

    def sign(self, digest: str) -> VersionSignature:
        """Sign a version."""
        signature = self._key.sign(_PURPOSE + bytes.fromhex(digest)).hex()
        return VersionSignature(
            format=1, algorithm="ed25519", digest=digest, key_id=self.key_id, signature=signature
        )


class Trust:
    """The public keys whose signatures are accepted.

    Args:
        keys: key id → key.
    """

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.keys = keys

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Trust:
        """Read public keys in PEM.

        Args:
            paths: files, and folders of `*.pub` files.

        Raises:
            SettingsError: a file is missing or not an Ed25519 public key, or a folder has none.
            MissingExtraError: `cryptography` is not installed.
        """
        serialization, ed25519 = _cryptography()
        keys: dict[str, Ed25519PublicKey] = {}
        for path in _key_files(paths):
            try:
                key = serialization.load_pem_public_key(path.read_bytes())
            except (OSError, ValueError) as problem:
                raise _unreadable_key("trusted_keys", path, str(problem)) from None
            if not isinstance(key, ed25519.Ed25519PublicKey):
                raise _unreadable_key("trusted_keys", path, "not an Ed25519 key")
            keys[key_id_of(key)] = key
        return cls(keys)

    def accepts(self, signature: VersionSignature) -> bool:
        """Whether a trusted key made this signature."""
        from cryptography.exceptions import InvalidSignature

        key = self.keys.get(signature.key_id)
        if key is None:
            return False
        message = _PURPOSE + bytes.fromhex(signature.digest)
        try:
            key.verify(bytes.fromhex(signature.signature), message)
        except InvalidSignature:
            return False
        return True

    def check(self, digest: str, signatures: Iterable[VersionSignature], *, name: str) -> None:
        """Refuse a version that no trusted key signed.

        Args:
            digest: the version's.
            signatures: what is known about it.
            name: what to call it in the message.

        Raises:
            UntrustedVersionError: unsigned, signed by others only, or wrongly signed.
        """
        found = [each for each in signatures if each.digest == digest]
        if any(self.accepts(each) for each in found):
            return
        wrong = [each.key_id[:16] for each in found if each.key_id in self.keys]
        what = "is not signed"
        if wrong:
            what = f"is wrongly signed: the signature of the trusted key {', '.join(wrong)} fails"
        elif found:
            what = "is signed only by keys that are not trusted: "
            what += ", ".join(each.key_id[:16] for each in found)
        raise UntrustedVersionError(
            f"{name} (sha256 {digest}) {what}",
            hint="register it again where a trusted `signing_key` is configured, or add the "
            "signer's public key to `trusted_keys`",
        )


class Signatures:
    """The signatures of a registry's versions.

    Args:
        artifacts: the store that they lie in.
        signer: signs what is registered, if given.
        trust: if given, versions that it does not accept are refused.
    """

    def __init__(
        self, artifacts: ArtifactStore, *, signer: Signer | None = None, trust: Trust | None = None
    ) -> None:
        self._artifacts = artifacts
        self._signer = signer
        self._trust = trust
        self._checked: set[str] = set()

    @classmethod
    def of(cls, settings: Settings, artifacts: ArtifactStore) -> Signatures:
        """Read the keys that the settings name.

        Raises:
            SettingsError: a key cannot be read or is not safe.
            MissingExtraError: keys are configured and `cryptography` is not installed.
        """
        signer = Signer.read(settings.signing_key) if settings.signing_key else None
        trust = Trust.read(settings.trusted_keys) if settings.trusted_keys else None
        return cls(artifacts, signer=signer, trust=trust)

    @property
    def required(self) -> bool:
        """Whether keys are trusted, so that a version needs a signature of one of them."""
        return self._trust is not None

    def sign(self, digest: str) -> None:
        """Sign a version, if there is a key to sign with."""
        if self._signer:
            self.add(self._signer.sign(digest))

    def add(self, signature: VersionSignature) -> None:
        """Keep a signature."""
        content = canonical_json(signature.model_dump(mode="json")) + b"\n"
        self._artifacts.write_object(signature.path, content)

    def list(self, digest: str) -> tuple[VersionSignature, ...]:
        """Return the signatures of a version; what cannot be read is none."""
        found = []
        for path in self._artifacts.list_objects(f"{FOLDER}/{digest}"):
            content = self._artifacts.read_object(path)
            try:
                signature = VersionSignature.model_validate_json(content or b"")
            except ValidationError:
                continue
            if signature.path == path:
                found.append(signature)
        return tuple(found)

    def check(self, digest: str, *, name: str, extra: Iterable[VersionSignature] = ()) -> None:
        """Refuse a version that no trusted key signed; accept all if no key is configured.

        Args:
            digest: the version's.
            name: what to call it in the message.
            extra: signatures that came with it and are not stored yet.

        Raises:
            UntrustedVersionError: unsigned, signed by others only, or wrongly signed.
        """
        if self._trust is None or digest in self._checked:
            return
        self._trust.check(digest, [*extra, *self.list(digest)], name=name)
        self._checked.add(digest)


def generate_keys(path: Path) -> Path:
    """Write a new private key (mode 0600) and beside it the public one; return the latter's path.

    Raises:
        UserError: one of the files exists or cannot be written.
        MissingExtraError: `cryptography` is not installed.
    """
    serialization, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    if public_path.exists():
        raise UserError("the file exists already", file=public_path, hint="choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, content, mode in ((path, private, 0o600), (public_path, public, 0o644)):
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
    except FileExistsError:
        raise UserError("the file exists already", file=path, hint="choose another name") from None
    except OSError as problem:
        raise UserError(f"cannot write the key: {problem.strerror}", file=path) from None
    return public_path


def key_id_of(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key: its name in signatures."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _key_files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(path.glob(f"*{PUBLIC_SUFFIX}"))
        if not inside:
            raise _unreadable_key("trusted_keys", path, f"no *{PUBLIC_SUFFIX} file in this folder")
        yield from inside


def _unreadable_key(field: str, path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"the key cannot be used: {why}",
        field=field,
        got=str(path),
        allowed="an Ed25519 key in PEM",
        hint="`kovar keys generate` makes a pair",
    )


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingExtraError.of("signing", needed_for="signing versions") from None
    return serialization, ed25519
