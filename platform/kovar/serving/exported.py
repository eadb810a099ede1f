"""The exports that an application's replicas may execute: bound by digest, fetched, loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kovar.inference import Export, ExportBuilder, load_runtime, needed_exports
from kovar.inference.exports.form import accuracy_of

if TYPE_CHECKING:
    from kovar.inference import ClassifierRuntime
    from kovar.registry import Manifest, Registry, Version
    from kovar.registry.artifacts import ArtifactStore
    from kovar.registry.cache import VersionCache
    from kovar.registry.derived import DerivedManifest
    from kovar.serving.spec import ServingSpec
    from kovar.settings import Settings


def bound_exports(
    spec: ServingSpec, version: Version, registry: Registry, settings: Settings
) -> tuple[DerivedManifest, ...]:
    """Return the exports of a version; the one that the spec cannot do without is made now.

    Args:
        spec: the application.
        version: what it serves, resolved.
        registry: where exports are.
        settings: where packages and locks are.

    Raises:
        DataError: int8 is asked for, and the texts that judge it are not there.
        GoldenError: the export does not answer as the version was evaluated.
        MissingExtraError: a library is not installed.
        ModelError: the model cannot be exported.
        SpecError: int8 loses too much accuracy, or the version does not classify texts.
    """
    if spec.runtime == "torch":
        return ()
    builder = export_builder(spec, version, registry, settings, base_dir=Path())
    found = builder.found()
    # One that loses too much is refused by every replica, so here it is none.
    allowed = [
        form
        for form, one in found.items()
        if (accuracy := accuracy_of(one.manifest)) is None
        or accuracy.loss <= spec.max_accuracy_loss
    ]
    needed = needed_exports(spec.wish, allowed, device=spec.device)
    if needed is not None:
        found[needed] = builder.ensure(needed)
        builder.check_loss(accuracy_of(found[needed].manifest), needed)
    return tuple(found[form].manifest for form in sorted(found, key=str))


def export_builder(
    spec: ServingSpec, version: Version, registry: Registry, settings: Settings, *, base_dir: Path
) -> ExportBuilder:
    """Return what finds and makes the exports of a version under an application's limits."""
    return ExportBuilder(
        registry,
        version,
        cache_dir=settings.cache_dir,
        base_dir=base_dir,
        max_accuracy_loss=spec.max_accuracy_loss,
    )


def fetch_exports(
    manifests: Sequence[DerivedManifest], cache: VersionCache, artifacts: ArtifactStore
) -> list[Export]:
    """Fetch the files of exports by their digests, and hash them.

    Raises:
        DamagedArtifactError: a file is missing, truncated or altered.
    """
    return [
        Export(
            manifest,
            # The cache looks at the files of a manifest alone, and both kinds have them.
            cache.materialize(manifest.digest, cast("Manifest", manifest), artifacts, rehash=True),
        )
        for manifest in manifests
    ]


def load_served(
    spec: ServingSpec,
    folder: Path,
    *,
    base_folder: Path | None,
    exports: Sequence[Export],
    cache_dir: Path,
) -> ClassifierRuntime:
    """Load what an application's replica executes, proven by its golden examples.

    Raises:
        GoldenError: the runtime does not answer as the version was evaluated.
    """
    return load_runtime(
        folder,
        runtime=spec.runtime,
        precision=spec.precision,
        max_accuracy_loss=spec.max_accuracy_loss,
        compiled=spec.compile,
        num_threads=spec.num_threads or math.ceil(spec.replica.cpus),
        device=spec.device,
        require_golden=True,
        base_folder=base_folder,
        exports=exports,
        measurements=cache_dir / "measurements",
    )
