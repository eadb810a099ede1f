"""From a resolved adapter to one that answers: fetched, hashed, loaded, held against its examples.

The signature was checked when the application was built; the digest says that it is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.errors import ModelError
from kovar.inference import AdapterBase, share_weights
from kovar.registry.artifacts import open_artifacts
from kovar.registry.cache import VersionCache
from kovar.serving.adapters.binding import BoundAdapters
from kovar.serving.adapters.model import AdapterModel, adapter_facts
from kovar.serving.adapters.pool import AdapterPool
from kovar.serving.adapters.routing import tell_router
from kovar.serving.cold_start import ColdStart
from kovar.serving.served_model import Predictor, ServedModel, served_model
from kovar.serving.spec import ServingSpec

if TYPE_CHECKING:
    from kovar.inference import Runtime
    from kovar.registry import Version


class AdapterSource:
    """The base of an application's adapters in memory, and the way to load them.

    Args:
        spec: the application.
        bound: its adapters.
        start: takes the seconds of each stage.
        artifact_root: where the blobs are.
        cache_dir: where verified copies are kept on this machine.

    Raises:
        DamagedArtifactError: a file of the base is missing, truncated or altered.
        ModelError: the base cannot be loaded.
    """

    def __init__(
        self,
        spec: ServingSpec,
        bound: BoundAdapters,
        start: ColdStart,
        *,
        artifact_root: str,
        cache_dir: Path,
    ) -> None:
        self.bound = bound
        self.num_shared_bytes = 0
        self._merge = spec.adapters is not None and spec.adapters.merge
        self._cache = VersionCache(cache_dir / "versions")
        self._artifacts = open_artifacts(artifact_root)
        base = bound.base
        folder = start.materialize(base.digest, base.manifest, self._cache, self._artifacts)
        with start.stage("load"):
            self._base = AdapterBase.load(
                folder,
                precision=spec.precision,
                device=spec.device,
                num_threads=spec.threads_per_batch,
            )
        self._facts = {
            version.digest: adapter_facts(
                version,
                max_positions=self._base.max_positions,
                precision=self._base.precision.precision,
                vocabulary_size=self._base.vocabulary_size,
                embedding_size=self._base.embedding_size,
                merge=self._merge,
            )
            for version in bound.versions
        }

    @property
    def max_length(self) -> int:
        """Tokens of the longest text that an adapter reads."""
        return max((one.max_length for one in self._facts.values()), default=1)

    def share_with(self, runtimes: Sequence[Runtime]) -> None:
        """Let other runtimes refer to the base's weights."""
        self.num_shared_bytes = share_weights(runtimes, base=self._base.module)

    def pool(self, spec: ServingSpec, predictor: Predictor) -> AdapterPool:
        """Return the pool of the replica's adapters, with those that are to be preloaded.

        Args:
            spec: the application.
            predictor: the queue in front of the runtimes.
        """
        settings = spec.adapters
        pool = AdapterPool(
            {version.digest: version for version in self.bound.versions},
            lambda version: self._load(version, predictor),
            max_loaded=settings.max_loaded if settings else 1,
            release=lambda version: self._cache.release(version.digest),
            on_change=tell_router,
        )
        wanted = settings.preload if settings else ()
        for version in self.bound.versions:
            if version.model in wanted:
                pool.preload(version.digest)
        return pool

    def models(self, pool: AdapterPool) -> list[AdapterModel]:
        """Return the adapters as the application's table of models holds them."""
        return [AdapterModel(facts, pool) for facts in self._facts.values()]

    def _load(self, version: Version, predictor: Predictor) -> ServedModel:
        folder = self._cache.materialize(
            version.digest, version.manifest, self._artifacts, rehash=True
        )
        runtime, facts = self._base.adapt(folder, merge=self._merge), self._facts[version.digest]
        if (runtime.labels, runtime.max_length) != (facts.labels, facts.max_length):
            raise ModelError(
                "the files have other labels or another length than the manifest says",
                got=str(version),
            )
        return served_model(facts, predictor, runtime)
