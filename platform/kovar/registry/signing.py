"""Signatures over versions and over what was derived from them, by Ed25519 (RFC 8032).

That of a version is made on its digest, which covers facts and files. Each signature is a small
JSON object beside the blobs, `signatures/<digest>/<key id>.json`: one per key, so two people who
sign at once overwrite nothing. Needs the extra `signing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from kovar.config import Config, canonical_json
from kovar.errors import UntrustedVersionError
from kovar.registry.artifacts import ArtifactStore
from kovar.registry.manifest import Sha256
from kovar.registry.signing_keys import Ed25519Signature, Signer, Trust
from kovar.settings import Settings

if TYPE_CHECKING:
    from kovar.registry.attestation import Attestation, AttestationStatement

FOLDER: Final = "signatures"
# Separates these signatures from all others that the same key may make.
_PURPOSE: Final = b"kovar-version-v1\0"
_HOW_TO_ATTEST: Final = (
    "make it again where a trusted `signing_key` is configured (exports: jobs/export.py), "
    "or take runtime: torch"
)

SignatureT = TypeVar("SignatureT", "VersionSignature", "Attestation")


class VersionSignature(Config):
    """One signature over one version."""

    format: Literal[1] = Field(description="format of this object")
    algorithm: Literal["ed25519"] = Field(description="algorithm of the signature")
    digest: Sha256 = Field(description="digest of the version")
    key_id: Sha256 = Field(description="SHA-256 of the raw public key")
    signature: Ed25519Signature = Field(description="the signature, in hexadecimal")

    @classmethod
    def by(cls, signer: Signer, digest: str) -> VersionSignature:
        """Sign a version."""
        signature = signer.sign(_PURPOSE + bytes.fromhex(digest))
        return cls(
            format=1,
            algorithm="ed25519",
            digest=digest,
            key_id=signer.key_id,
            signature=signature,
        )

    @property
    def message(self) -> bytes:
        """The bytes that were signed."""
        return _PURPOSE + bytes.fromhex(self.digest)

    @property
    def path(self) -> str:
        """Path below the artifact root."""
        return f"{FOLDER}/{self.digest}/{self.key_id}.json"


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
            self.add(VersionSignature.by(self._signer, digest))

    def add(self, signature: VersionSignature) -> None:
        """Keep a signature."""
        self._write(signature)

    def list(self, digest: str) -> tuple[VersionSignature, ...]:
        """Return the signatures of a version; what cannot be read is none."""
        return self._read(VersionSignature, f"{FOLDER}/{digest}")

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
        found = [each for each in (*extra, *self.list(digest)) if each.digest == digest]
        self._trust.check(
            found,
            name=f"{name} (sha256 {digest})",
            hint="register it again where a trusted `signing_key` is configured, or add the "
            "signer's public key to `trusted_keys`",
        )
        self._checked.add(digest)

    def attest(self, statement: AttestationStatement) -> None:
        """Sign what is stated of a derived artifact, if there is a key to sign with."""
        from kovar.registry.attestation import Attestation

        if self._signer:
            self._write(Attestation.by(self._signer, statement))

    def attestations(self, digest: str) -> tuple[Attestation, ...]:
        """Return the signed statements about a derived artifact; what cannot be read is none."""
        from kovar.registry.attestation import FOLDER, Attestation

        return self._read(Attestation, f"{FOLDER}/{digest}")

    def check_derived(self, digest: str, *, name: str) -> None:
        """Refuse a derived artifact that no trusted key attests; accept all without such keys.

        Args:
            digest: the derived artifact's, computed from its manifest.
            name: what to call it in the message.

        Raises:
            UntrustedVersionError: not attested, attested by others only, or wrongly signed.
        """
        if self._trust is None or f"derived/{digest}" in self._checked:
            return
        found = [each for each in self.attestations(digest) if each.digest == digest]
        self._trust.check(found, name=f"{name} (sha256 {digest})", hint=_HOW_TO_ATTEST)
        self._checked.add(f"derived/{digest}")

    def check_can_attest(self, *, name: str) -> None:
        """Refuse to derive what this very machine would refuse to load.

        Raises:
            UntrustedVersionError: keys are trusted, and the one that signs here is none of them.
        """
        if self._trust is None or (self._signer and self._signer.key_id in self._trust.keys):
            return
        key = "no `signing_key`" if self._signer is None else "a `signing_key` that is not trusted"
        raise UntrustedVersionError(
            f"{name} would not be attested: there is {key} here", hint=_HOW_TO_ATTEST
        )

    def _write(self, signature: VersionSignature | Attestation) -> None:
        content = canonical_json(signature.model_dump(mode="json")) + b"\n"
        self._artifacts.write_object(signature.path, content)

    def _read(self, kind: type[SignatureT], folder: str) -> tuple[SignatureT, ...]:
        found: list[SignatureT] = []
        for path in self._artifacts.list_objects(folder):
            content = self._artifacts.read_object(path)
            try:
                signature = kind.model_validate_json(content or b"")
            except ValidationError:
                continue
            if signature.path == path:
                found.append(signature)
        return tuple(found)
