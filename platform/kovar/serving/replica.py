"""One replica: a runtime, its queue, and the HTTP application in front of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.inference import BatchRunner
from kovar.registry import Version
from kovar.registry.artifacts import open_artifacts
from kovar.registry.cache import VersionCache
from kovar.registry.derived import DerivedManifest
from kovar.serving.answering import Answering
from kovar.serving.autoscaling.binding import reported
from kovar.serving.cold_start import ColdStart, import_library, warm_up
from kovar.serving.exchange import Exchange
from kovar.serving.exported import fetch_exports, load_served
from kovar.serving.guards import replica_guards
from kovar.serving.protocol import ServedVersion
from kovar.serving.rpc import InferenceService
from kovar.serving.served_model import ModelTable, served_model
from kovar.serving.spec import ServingSpec

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from kovar.inference import Runtime
    from kovar.serving.rpc.service import RpcScope


class Replica(InferenceService):
    """What Serve starts; it answers only after the golden examples were reproduced.

    The files are fetched by their digests and hashed, without the registry's database: a replica
    starts while the database is away, and needs no password.

    Args:
        spec: what is served, and within which limits.
        version: the version, resolved.
        artifact_root: where the blobs of the version are.
        cache_dir: where verified copies are kept on this machine.
        base: what the version was trained on, if it is an adapter.
        exports: what other runtimes than torch execute, of the version.

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
        exports: Sequence[DerivedManifest] = (),
    ) -> None:
        cache, artifacts = VersionCache(cache_dir / "versions"), open_artifacts(artifact_root)

        start = ColdStart()

        def fetch(wanted: Version) -> Path:
            return start.materialize(wanted.digest, wanted.manifest, cache, artifacts)

        with start.stage("import"):
            import_library(spec.runtime)
        folder, base_folder = fetch(version), fetch(base) if base else None
        with start.stage("fetch"):
            files = fetch_exports(exports, cache, artifacts)
        with start.stage("load"):
            runtime = load_served(
                spec, folder, base_folder=base_folder, exports=files, cache_dir=cache_dir
            )
        with start.stage("warm"):
            warm_up(runtime)
        start.log(str(version))
        self._cold_start = start.seconds
        self._limits = spec.limits
        served = served_version(version, runtime)
        self._guards = replica_guards(spec, (served,))
        self._runner = BatchRunner(
            runtime,
            limits=spec.batching.on(spec.device),
            max_queued=spec.limits.max_queued,
            on_batch=self._guards.on_batch,
        )
        self._guards.watch(self._runner)
        self._models = (served_model(served, self._runner, runtime),)
        self._answering = Answering(ModelTable(self._models), spec.limits)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application; Serve calls this after the constructor."""
        from kovar.serving.api import create_api

        return create_api(self._models, limits=self._limits, middlewares=self._guards.middlewares)

    @property
    def answering(self) -> Answering:
        """What answers calls of gRPC."""
        return self._answering

    def admit_rpc(
        self, headers: Mapping[str, str], scope: RpcScope, exchange: Exchange
    ) -> AbstractContextManager[None]:
        """Ask the guards before a call of gRPC is read."""
        return self._guards.admit_rpc(headers, scope, exchange)

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
        for part in ("_runner", "_guards"):
            if hasattr(self, part):
                getattr(self, part).close()


def served_version(version: Version, runtime: Runtime) -> ServedVersion:
    """Name a version as its responses do, with what its runtime offers."""
    return ServedVersion(
        model=version.model,
        version=version.number,
        digest=version.digest,
        labels=runtime.labels,
        max_length=runtime.max_length,
        runtime=runtime.name,
        precision=runtime.precision,
        vocabulary_size=runtime.vocabulary_size,
        embedding_size=runtime.embedding_size,
    )
