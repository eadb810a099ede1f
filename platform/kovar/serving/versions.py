"""The versions of one application: resolved when it is built, loaded when a replica starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.config import format_size
from kovar.errors import SpecError
from kovar.inference import adapter_base, share_weights
from kovar.models import ModelSpec, known_config
from kovar.models.forward import FP32_BYTES
from kovar.models.size import model_size
from kovar.registry import Version
from kovar.registry.artifacts import open_artifacts
from kovar.registry.cache import VersionCache
from kovar.registry.derived import DerivedManifest
from kovar.serving.adapters.binding import bind_adapters
from kovar.serving.cold_start import ColdStart, warm_up
from kovar.serving.exported import bound_exports, fetch_exports, load_served
from kovar.serving.spec import ServingSpec

if TYPE_CHECKING:
    from kovar.inference import ClassifierRuntime
    from kovar.registry import Registry
    from kovar.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BoundVersion:
    """One version and all that a replica needs of it.

    Attributes:
        version: resolved.
        base: what it was trained on, if it is an adapter.
        exports: what other runtimes than torch execute.
    """

    version: Version
    base: Version | None = None
    exports: tuple[DerivedManifest, ...] = ()


def bind_versions(
    spec: ServingSpec, registry: Registry, settings: Settings
) -> tuple[BoundVersion, ...]:
    """Resolve the versions of an application, the default one first.

    Raises:
        NotFoundError: the registry has no such model, version or alias.
        SpecError: a version is named twice, or a batch cannot hold one of its texts.
        UntrustedVersionError: keys are trusted, and none of them signed a version.
    """
    bound: dict[str, BoundVersion] = {}
    named = [(spec.model, spec.version, "")]
    named += [
        (one.model, one.version, f"more_models[{index}]")
        for index, one in enumerate(spec.more_models)
    ]
    for model, wanted, field in named:
        version = registry.version(model, wanted)
        if version.digest in bound:
            raise SpecError(
                "this version is served already", field=f"{field}.version", got=str(version)
            )
        registry.check_signature(version)
        _check_batch_holds_a_text(spec, version)
        bound[version.digest] = BoundVersion(
            version,
            base=adapter_base(registry, version),
            exports=bound_exports(spec, version, registry, settings),
        )
    return tuple(bound.values())


def _check_batch_holds_a_text(spec: ServingSpec, version: Version) -> None:
    longest = version.manifest.signature.max_length
    if longest is not None and longest > spec.batching.max_tokens:
        raise SpecError(
            f"a text of {version} may have {longest} tokens, more than a whole batch",
            field="batching.max_tokens",
            got=spec.batching.max_tokens,
            allowed=f"at least {longest}",
        )


def further_weights(spec: ServingSpec, registry: Registry) -> int:
    """Return the most bytes, in fp32, that an application's further models add to its first one.

    An adapter shares at least the embeddings with another one of the same base.

    Raises:
        NotFoundError: the registry has no such model, version or alias.
        SpecError: the adapters are not of one base.
    """
    base = adapter_base(registry, registry.version(spec.model, spec.version))
    bases = {base.digest} if base else set()
    num_bytes = 0
    adapters = bind_adapters(spec, registry)
    if adapters is not None and spec.adapters is not None:
        num_bytes += _weights(adapters.base, registry, shared=adapters.base.digest in bases)
        bases.add(adapters.base.digest)
        each = adapters.largest_bytes
        if spec.adapters.merge:
            each += _weights(adapters.base, registry, shared=True)
        num_bytes += (min(spec.adapters.max_loaded, len(adapters.versions)) + 1) * each
    for one in spec.more_models:
        version = registry.version(one.model, one.version)
        base = adapter_base(registry, version)
        num_bytes += _weights(version, registry, shared=base is not None and base.digest in bases)
        bases |= {base.digest} if base else set()
    return num_bytes


def _weights(version: Version, registry: Registry, *, shared: bool) -> int:
    """Return the bytes of a version's weights in fp32; 0 where they are not known.

    Args:
        version: a model or an adapter, which is as large as its base.
        registry: where it is.
        shared: the embeddings are in memory already.
    """
    named = ModelSpec(base=f"version:{version.model}@{version.digest}")
    config = known_config(named, base_dir=Path(), registry=registry)
    size = model_size(config, num_labels=2) if config else None
    return 0 if size is None else (size.total - (size.embedding if shared else 0)) * FP32_BYTES


def load_versions(
    spec: ServingSpec,
    bound: Sequence[BoundVersion],
    start: ColdStart,
    *,
    artifact_root: str,
    cache_dir: Path,
) -> list[ClassifierRuntime]:
    """Fetch versions and load them, proven by their golden examples.

    Versions that were trained on the same base share the weights that none of them changed.

    Args:
        spec: the application.
        bound: its versions.
        start: takes the seconds of each stage.
        artifact_root: where the blobs are.
        cache_dir: where verified copies are kept on this machine.

    Raises:
        DamagedArtifactError: a file is missing, truncated or altered.
        GoldenError: a runtime does not answer as its version was evaluated.
    """
    cache, artifacts = VersionCache(cache_dir / "versions"), open_artifacts(artifact_root)
    runtimes: list[ClassifierRuntime] = []

    def fetch(wanted: Version) -> Path:
        return start.materialize(wanted.digest, wanted.manifest, cache, artifacts)

    for one in bound:
        folder, base = fetch(one.version), fetch(one.base) if one.base else None
        with start.stage("fetch"):
            files = fetch_exports(spec, one.exports, cache, artifacts)
        with start.stage("load"):
            runtimes.append(
                load_served(spec, folder, base_folder=base, exports=files, cache_dir=cache_dir)
            )
            num_bytes = share_weights(runtimes)
        if num_bytes:
            logger.info("%s shares %s of its weights", one.version, format_size(num_bytes))
        with start.stage("warm"):
            warm_up(runtimes[-1])
    return runtimes
