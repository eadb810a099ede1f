"""Exports made ahead of a deployment, and which runtime a replica would take with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.errors import GoldenError, KovarError, UserError
from kovar.inference import adapter_base, possible_exports
from kovar.inference.exports import Export
from kovar.serving.exported import Fetched, export_builder, load_served

if TYPE_CHECKING:
    from kovar.inference import ExportForm
    from kovar.registry import Registry, Version
    from kovar.registry.derived import DerivedArtifact
    from kovar.serving.spec import ServingSpec
    from kovar.settings import Settings


@dataclass(frozen=True)
class Attempt:
    """One export that was made, was there before, or was refused.

    Args:
        form: in which numbers it computes.
        export: the export; None where it was refused.
        artifact: the export in the registry; None where it was refused.
        refusal: why.
    """

    form: ExportForm
    export: Export | None
    artifact: DerivedArtifact | None
    refusal: KovarError | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        if self.artifact is None or self.export is None:
            return {"export": str(self.form), "refused": str(self.refusal)}
        golden, accuracy = self.artifact.golden, self.export.accuracy
        return {
            "export": str(self.form),
            "digest": self.artifact.digest,
            "size_bytes": sum(file.size_bytes for file in self.artifact.manifest.files),
            "golden_difference": golden.difference if golden else None,
            "accuracy": vars(accuracy) if accuracy else None,
        }


@dataclass(frozen=True)
class ExportResult:
    """What was exported, and what a replica on this chip would take.

    Args:
        version: what was exported.
        attempts: one for each export that could serve the application.
        reason: what a replica on this chip executes, and why.
    """

    version: Version
    attempts: tuple[Attempt, ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "model": self.version.model,
            "version": self.version.number,
            "digest": self.version.digest,
            "exports": [one.to_json() for one in self.attempts],
            "runtime": self.reason,
        }


def export_version(
    spec: ServingSpec, *, registry: Registry, settings: Settings, base_dir: Path
) -> ExportResult:
    """Make every export that could serve an application, and measure them here.

    One that is there is made again where its files in the store are damaged. What was measured
    before on this machine is measured again.

    Args:
        spec: the application.
        registry: where the version is, and its exports will be.
        settings: where packages, locks and measurements are.
        base_dir: folder that relative paths in the version's own spec start from.

    Raises:
        NotFoundError: the registry has no such model, version or alias.
        MissingExtraError: a library is not installed.
        SpecError: nothing can run as the application wishes.
    """
    version = registry.version(spec.model, spec.version)
    registry.check_signature(version)
    builder = export_builder(spec, version, registry, settings, base_dir=base_dir)
    attempts = []
    for form in possible_exports(spec.wish, device=spec.device):
        try:
            artifact, folder = builder.fetch(form)
            builder.check_loss(Export(artifact.manifest, Path()).accuracy, form)
        except (GoldenError, UserError) as refusal:
            attempts.append(Attempt(form, None, None, refusal))
            continue
        attempts.append(Attempt(form, Export(artifact.manifest, folder), artifact, None))
    base = adapter_base(registry, version)
    runtime = load_served(
        spec,
        registry.materialize(version),
        base_folder=None if base is None else registry.materialize(base),
        exports=Fetched(tuple(one.export for one in attempts if one.export is not None)),
        cache_dir=settings.cache_dir,
        measure_anew=True,
    )
    return ExportResult(version, tuple(attempts), runtime.reason)
