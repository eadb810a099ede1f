"""Exports of a registered tiny version, made without training data."""

from __future__ import annotations

from pathlib import Path

from kovar.inference import Export, ExportBuilder, ExportForm
from kovar.registry import Registry, Version
from kovar.settings import Settings


def builder_of(settings: Settings, version: Version, registry: Registry) -> ExportBuilder:
    return ExportBuilder(
        registry,
        version,
        cache_dir=settings.cache_dir,
        base_dir=Path(),
        max_accuracy_loss=0.01,
    )


def build_export(settings: Settings, version: Version, form: str = "fp32") -> Export:
    """Make an export and fetch its files."""
    with Registry.open(settings) as registry:
        artifact = builder_of(settings, version, registry).ensure(ExportForm.of(form))
        return Export(artifact.manifest, registry.materialize_derived(artifact))
