"""The exports that an application's replicas may execute: bound by digest, fetched, loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kovar.errors import DamagedArtifactError
from kovar.inference import Export, ExportBuilder, load_runtime, needed_exports
from kovar.inference.exports.form import accuracy_of, form_of

if TYPE_CHECKING:
    from kovar.inference import ClassifierRuntime
    from kovar.registry import Manifest, Registry, Version
    from kovar.registry.artifacts import ArtifactStore
    from kovar.registry.cache import VersionCache
    from kovar.registry.derived import DerivedManifest
    from kovar.serving.spec import ServingSpec
    from kovar.settings import Settings

log = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Fetched:
    """The exports of a version on this machine.

    Args:
        exports: whole and hashed.
        damaged: names of those that are not.
    """

    exports: tuple[Export, ...]
    damaged: tuple[str, ...] = ()


def fetch_exports(
    spec: ServingSpec,
    manifests: Sequence[DerivedManifest],
    cache: VersionCache,
    artifacts: ArtifactStore,
) -> Fetched:
    """Fetch the files of exports by their digests, and hash them.

    One that is damaged is left out where the spec leaves the runtime open.

    Raises:
        DamagedArtifactError: a file is missing, truncated or altered.
    """
    exports, damaged = [], []
    for manifest in manifests:
        try:
            # The cache looks at the files of a manifest alone, and both kinds have them.
            files = cast("Manifest", manifest)
            folder = cache.materialize(manifest.digest, files, artifacts, rehash=True)
        except DamagedArtifactError as damage:
            if spec.runtime != "auto":
                raise
            damaged.append(f"export {form_of(manifest)}")
            log.warning("the %s is left out: %s", damaged[-1], damage.message)
        else:
            exports.append(Export(manifest, folder))
    return Fetched(tuple(exports), tuple(damaged))


def load_served(
    spec: ServingSpec,
    folder: Path,
    *,
    base_folder: Path | None,
    exports: Fetched,
    cache_dir: Path,
    measure_anew: bool = False,
) -> ClassifierRuntime:
    """Load what an application's replica executes, proven by its golden examples.

    Args:
        spec: the application.
        folder: files of the version.
        base_folder: files of the version that an adapter was trained on.
        exports: the version's exports on this machine.
        cache_dir: where measured rates are kept.
        measure_anew: measure what was measured before as well.

    Raises:
        GoldenError: the runtime does not answer as the version was evaluated.
    """
    runtime = load_runtime(
        folder,
        runtime=spec.runtime,
        precision=spec.precision,
        max_accuracy_loss=spec.max_accuracy_loss,
        compiled=spec.compile,
        num_threads=spec.threads_per_batch,
        num_parallel=spec.batching.parallel,
        device=spec.device,
        require_golden=True,
        base_folder=base_folder,
        exports=exports.exports,
        measurements=cache_dir / "measurements",
        engines=cache_dir / "engines",
        measure_anew=measure_anew,
    )
    runtime.left_out += exports.damaged
    damaged = [f"left out: {one} (damaged)" for one in exports.damaged]
    runtime.reason = "; ".join([runtime.reason, *damaged])
    return runtime
