"""A registered tiny version with labeled texts, and its export in fp32."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kovar.inference import Export, ExportBuilder, ExportForm
from kovar.registry import Registry, Version
from kovar.settings import Settings
from tiny import WORDS
from tiny_version import build_tiny_version, register_tiny_version, settings_in

NUM_ROWS, NUM_HELD_OUT = 60, 20


@dataclass(frozen=True)
class ExportedVersion:
    """A version and what was made of it.

    Args:
        settings: where its registry is.
        version: the version, which names the rows that it was evaluated on.
        rows: folder of those rows.
        folder: its files.
        export: in fp32.
    """

    settings: Settings
    version: Version
    rows: Path
    folder: Path
    export: Export


def export_tiny_version(folder: Path) -> ExportedVersion:
    """Register a version and export it."""
    settings = settings_in(folder)
    files = build_tiny_version(folder / "tiny")
    data = {"source": "rows.jsonl", "evaluation": NUM_HELD_OUT}
    version = register_tiny_version(settings, files, spec={"data": data})
    write_rows(folder / "rows.jsonl")
    with Registry.open(settings) as registry:
        artifact = builder_of(settings, version, registry, rows=folder).ensure(ExportForm("fp32"))
        export = Export(artifact.manifest, registry.materialize_derived(artifact))
        return ExportedVersion(settings, version, folder, registry.materialize(version), export)


def builder_of(
    settings: Settings, version: Version, registry: Registry, *, rows: Path, loss: float = 0.01
) -> ExportBuilder:
    """Return what exports a version."""
    return ExportBuilder(
        registry, version, cache_dir=settings.cache_dir, base_dir=rows, max_accuracy_loss=loss
    )


def write_rows(path: Path) -> None:
    """Write labeled texts."""
    lines = [
        {
            "text": " ".join(WORDS[(row * step) % len(WORDS)] for step in range(1, 3 + row % 9)),
            "label": ("negative", "positive")[row % 2],
        }
        for row in range(NUM_ROWS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
