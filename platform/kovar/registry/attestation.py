"""Who made a derived artifact of which version, with what, and what was measured of it: signed.

Each signed statement is a small JSON object beside the blobs,
`signatures/derived/<digest>/<key id>.json`. Needs the extra `signing`.
"""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from pydantic import Field, field_validator

from kovar.config import Config, canonical_json
from kovar.registry.derived import DerivedManifest
from kovar.registry.manifest import Sha256
from kovar.registry.signing_keys import Ed25519Signature, Signer
from kovar.registry.version import GoldenResult

FOLDER: Final = "signatures/derived"
# A version's signature is made on other bytes, so neither can stand for the other.
_PURPOSE: Final = b"kovar-derived-v1\0"
_MADE_WITH: Final = (
    "kovar-platform",
    "onnx",
    "onnxruntime",
    "openvino",
    "torch",
    "transformers",
)


class AttestationStatement(Config):
    """What a signer says of a derived artifact."""

    manifest: DerivedManifest = Field(
        description="its files by digest, the version it was made of, and how"
    )
    made_by: str = Field(description="who made it")
    made_with: dict[str, str] = Field(description="distribution → version")
    golden: GoldenResult | None = Field(
        default=None, description="how it reproduced the golden examples where it was made"
    )

    def to_text(self) -> str:
        """Return the JSON that is signed."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True)).decode()


class Attestation(Config):
    """One signature over one statement; what is signed is the statement's text as it stands."""

    format: Literal[1] = Field(description="format of this object")
    algorithm: Literal["ed25519"] = Field(description="algorithm of the signature")
    statement: str = Field(description="JSON of an `AttestationStatement`")
    key_id: Sha256 = Field(description="SHA-256 of the raw public key")
    signature: Ed25519Signature = Field(description="the signature, in hexadecimal")

    @classmethod
    def by(cls, signer: Signer, statement: AttestationStatement) -> Attestation:
        """Sign a statement."""
        text = statement.to_text()
        return cls(
            format=1,
            algorithm="ed25519",
            statement=text,
            key_id=signer.key_id,
            signature=signer.sign(_PURPOSE + text.encode()),
        )

    @field_validator("statement")
    @classmethod
    def _can_be_read(cls, text: str) -> str:
        AttestationStatement.model_validate_json(text)
        return text

    @cached_property
    def stated(self) -> AttestationStatement:
        """The statement."""
        return AttestationStatement.model_validate_json(self.statement)

    @property
    def digest(self) -> str:
        """Digest of the derived artifact."""
        return self.stated.manifest.digest

    @property
    def message(self) -> bytes:
        """The bytes that were signed."""
        return _PURPOSE + self.statement.encode()

    @property
    def path(self) -> str:
        """Path below the artifact root."""
        return f"{FOLDER}/{self.digest}/{self.key_id}.json"


def installed_makers() -> dict[str, str]:
    """Return the versions of the libraries that artifacts are derived with, as installed."""
    found = {}
    for name in _MADE_WITH:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
