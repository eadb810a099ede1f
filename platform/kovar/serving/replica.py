"""One replica: a runtime, its queue, and the HTTP application in front of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.inference import BatchRunner, load_runtime
from kovar.registry import Version
from kovar.registry.artifacts import open_artifacts
from kovar.registry.cache import VersionCache
from kovar.serving.autoscaling.binding import reported
from kovar.serving.protocol import ServedVersion
from kovar.serving.spec import ServingSpec

if TYPE_CHECKING:
    from fastapi import FastAPI


class Replica:
    """What Serve starts; it answers only after the golden examples were reproduced.

    The files are fetched by their digests and hashed, without the registry's database: a replica
    starts while the database is away, and needs no password.

    Args:
        spec: what is served, and within which limits.
        version: the version, resolved.
        artifact_root: where the blobs of the version are.
        cache_dir: where verified copies are kept on this machine.
        base: what the version was trained on, if it is an adapter.

    Raises:
        DamagedArtifactError: a file is missing, truncated or altered.
        GoldenError: the runtime does not answer as the version was evaluated.
    """

    def __init__(
        self,
        spec: ServingSpec,
        version: Version,
        *,
        artifact_root: str,
        cache_dir: Path,
        base: Version | None = None,
    ) -> None:
        cache, artifacts = VersionCache(cache_dir / "versions"), open_artifacts(artifact_root)

        def fetch(wanted: Version) -> Path:
            return cache.materialize(wanted.digest, wanted.manifest, artifacts, rehash=True)

        runtime = load_runtime(
            fetch(version),
            runtime=spec.runtime,
            precision=spec.precision,
            num_threads=spec.num_threads or math.ceil(spec.replica.cpus),
            device=spec.device,
            require_golden=True,
            base_folder=fetch(base) if base else None,
        )
        self._limits = spec.limits
        self._runner = BatchRunner(
            runtime, limits=spec.batching.on(spec.device), max_queued=spec.limits.max_queued
        )
        self._served = ServedVersion(
            model=version.model,
            version=version.number,
            digest=version.digest,
            labels=runtime.labels,
            max_length=runtime.max_length,
            runtime=runtime.name,
            precision=runtime.precision,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve calls this after the constructor."""
        from kovar.serving.api import create_api

        return create_api(self._runner, served=self._served, limits=self._limits)

    def check_health(self) -> None:
        """Tell Serve to replace this replica when its runtime is dead or stuck.

        Raises:
            KovarError: no answers can come any more.
        """
        self._runner.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Serve what this replica is asked and how fast it is, for the autoscaling policy."""
        return reported(self._runner.load())

    def __del__(self) -> None:
        """End the runtime's thread; Serve calls this once the requests have drained."""
        runner = getattr(self, "_runner", None)
        if runner is not None:
            runner.close()
