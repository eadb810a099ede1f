"""`kovar-manifest.json`: what travels with the files of a version, so that it arrives as itself."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from pydantic import Field, JsonValue, ValidationError

from kovar.config import Config, canonical_json
from kovar.errors import RegistryError, UserError
from kovar.registry.artifacts import not_as_manifest
from kovar.registry.formats import SourceFile
from kovar.registry.manifest import Manifest, Sha256
from kovar.registry.registry import Progress, Registry
from kovar.registry.signing import VersionSignature
from kovar.registry.version import Version

MANIFEST_FILE: Final = "kovar-manifest.json"
MAX_BYTES: Final = 64 << 20


class Envelope(Config):
    """A version without its files."""

    format: Literal[1] = Field(description="format of this file")
    model: str = Field(description="name of the model that it was exported from")
    number: int = Field(description="its number there")
    digest: Sha256 = Field(description="digest of the version")
    created_at: datetime = Field(description="when it was registered there")
    created_by: str = Field(description="who registered it there")
    run: str | None = Field(default=None, description="id of the run that made it")
    sweep: str | None = Field(default=None, description="id of the sweep that the run belongs to")
    tags: dict[str, str] = Field(default_factory=dict, description="free labels")
    run_facts: dict[str, JsonValue] = Field(
        default_factory=dict, description="what an identical run would not repeat"
    )
    signatures: tuple[VersionSignature, ...] = Field(default=(), description="signatures over it")
    manifest: Manifest = Field(description="facts and files; its digest is the version's")

    @classmethod
    def of(cls, registry: Registry, version: Version) -> Envelope:
        """Describe a version.

        Raises:
            UserError: one of its files has the name that the description needs.
        """
        if any(file.path == MANIFEST_FILE for file in version.manifest.files):
            raise UserError(
                f"{version} has a file named {MANIFEST_FILE} of its own",
                hint="register it without that file",
            )
        return cls(
            format=1,
            model=version.model,
            number=version.number,
            digest=version.digest,
            created_at=version.created_at,
            created_by=version.created_by,
            run=version.run,
            sweep=version.sweep,
            tags=dict(version.tags),
            run_facts=dict(version.run_facts),
            signatures=registry.signatures(version),
            manifest=version.manifest,
        )

    @classmethod
    def parse(cls, content: bytes) -> Envelope:
        """Read a description; its manifest must have the digest that it states.

        Raises:
            DamagedArtifactError: it was altered.
            RegistryError: a newer Kovar wrote it.
        """
        try:
            found = cls.model_validate_json(content)
        except ValidationError as problem:
            errors = problem.errors(include_url=False, include_input=False)
            if any(error["type"] == "extra_forbidden" for error in errors):
                raise RegistryError(
                    f"{MANIFEST_FILE} has fields that this Kovar does not know",
                    hint="upgrade Kovar: pip install --upgrade kovar-platform",
                ) from None
            where = ".".join(map(str, errors[0]["loc"]))
            raise not_as_manifest(MANIFEST_FILE, f"{where}: {errors[0]['msg']}") from None
        if found.manifest.digest != found.digest:
            raise not_as_manifest(MANIFEST_FILE, f"it hashes to {found.manifest.digest}")
        return found

    def to_bytes(self) -> bytes:
        """Serialize; equal versions give equal bytes."""
        return canonical_json(self.model_dump(mode="json", exclude_defaults=True)) + b"\n"

    def register(
        self,
        registry: Registry,
        files: list[SourceFile],
        *,
        model: str | None = None,
        progress: Progress | None = None,
    ) -> Version:
        """Register the files as this version.

        Args:
            registry: where to.
            files: the files of the manifest, checked.
            model: name of the model; the name it had by default.
            progress: told of the bytes stored.
        """
        return registry.adopt(
            model or self.model,
            self.manifest,
            files,
            signatures=self.signatures,
            run=self.run,
            sweep=self.sweep,
            tags=self.tags,
            run_facts=self.run_facts,
            progress=progress,
        )
