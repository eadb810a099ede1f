"""One replica: a runtime, its queue, and the HTTP application in front of them."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.config import format_size
from kovar.inference import BatchRunner
from kovar.inference.priority import give_way
from kovar.registry import Version
from kovar.serving.adapters.readings import AdapterReadings
from kovar.serving.adapters.source import AdapterSource
from kovar.serving.answering import Answering
from kovar.serving.autoscaling.binding import reported
from kovar.serving.cold_start import ColdStart, import_library
from kovar.serving.door import DOOR, Keeper
from kovar.serving.environment import missing
from kovar.serving.exchange import Exchange
from kovar.serving.guards import replica_guards
from kovar.serving.protocol import ServedVersion
from kovar.serving.rpc import InferenceService
from kovar.serving.served_model import Model, ModelTable, served_model
from kovar.serving.spec import ServingSpec
from kovar.serving.versions import BoundVersion, load_versions

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from kovar.inference import ClassifierRuntime, Runtime
    from kovar.serving.adapters.binding import BoundAdapters
    from kovar.serving.rpc.service import RpcScope

logger = logging.getLogger(__name__)

COLLECT_AFTER: Final = (2_000, 10, 10)
"""Objects, and collections of each generation, after which the next one is collected."""


class Replica(InferenceService):
    """What Serve starts; it answers only after the golden examples were reproduced.

    The files are fetched by their digests and hashed, without the registry's database: a replica
    starts while the database is away, and needs no password.

    Args:
        spec: what is served, and within which limits.
        versions: what is served, the default one first.
        adapters: what is served beside them, in memory while it is asked for.
        artifact_root: where the blobs of the versions are.
        cache_dir: where verified copies are kept on this machine.

    Raises:
        DamagedArtifactError: a file is missing, truncated or altered.
        GoldenError: the runtime does not answer as the version was evaluated.
    """

    def __init__(
        self,
        spec: ServingSpec,
        versions: Sequence[BoundVersion],
        adapters: BoundAdapters | None = None,
        *,
        artifact_root: str,
        cache_dir: Path,
    ) -> None:
        start = ColdStart()
        with start.stage("import"):
            import_library(spec.runtime)
        places: Any = {"artifact_root": artifact_root, "cache_dir": cache_dir}
        # In a thread that ends: threads of OpenMP stay with the thread that computed first, and
        # where they and those of the runner outnumber the cores, each of the latter sleeps
        # between any two operations, at half the speed. Threads of libraries have its priority.
        with ThreadPoolExecutor(max_workers=1, initializer=give_way) as loader:
            loading = loader.submit(_load, spec, versions, adapters, start, **places)
            runtimes, source = loading.result()
        self._cold_start = start.seconds
        self._limits = spec.limits
        served = [
            served_version(one.version, runtime)
            for one, runtime in zip(versions, runtimes, strict=True)
        ]
        self._guards = replica_guards(spec, served, cold_start=start.seconds)
        # Only now do the guards take log lines.
        start.log(str(versions[0].version))
        if lacking := missing(os.environ):
            names = ", ".join(lacking)
            logger.warning("Ray was started without what `kovar cluster env` prints: %s", names)
        for one, runtime in zip(versions, runtimes, strict=True):
            logger.info("%s is executed by %s", one.version, runtime.reason)
        longest = max(runtime.max_length for runtime in runtimes)
        self._runner = BatchRunner(
            runtimes[0],
            max_length=max(longest, source.max_length) if source else longest,
            limits=spec.batching.on(spec.device),
            max_queued=spec.limits.max_queued,
            max_wait_s=spec.limits.max_wait_s,
            on_batch=self._guards.on_batch,
        )
        self._guards.watch(self._runner)
        self._models: list[Model] = [
            served_model(one, self._runner, runtime)
            for one, runtime in zip(served, runtimes, strict=True)
        ]
        if source is not None:
            self._hold_adapters(source, spec)
        self._answering = Answering(ModelTable(self._models), spec.limits)
        note = self._guards.observer.turned_away
        self._keeper = Keeper(self._runner.refusal, served[0], note)
        DOOR.keep(self._keeper)
        _spare_the_collector()

    def _hold_adapters(self, source: AdapterSource, spec: ServingSpec) -> None:
        """Serve adapters beside the versions that are always in memory."""
        saved = format_size(source.num_shared_bytes)
        logger.info("%s, the adapters' base, saves the others %s", source.bound.base, saved)
        self._adapters = source.pool(spec, self._runner)
        models = source.models(self._adapters)
        self._models += models
        self._guards.watch_adapters(AdapterReadings(models, self._adapters))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application; Serve calls this after the constructor."""
        from kovar.serving.api import create_api

        return create_api(
            self._models,
            limits=self._limits,
            middlewares=self._guards.middlewares,
            keyed=self._guards.gate.is_locked,
            answering=self._answering,
        )

    @property
    def answering(self) -> Answering:
        """What answers calls of gRPC."""
        return self._answering

    @contextmanager
    def admit_rpc(
        self, headers: Mapping[str, str], scope: RpcScope, exchange: Exchange
    ) -> Iterator[None]:
        """Ask the guards before a call of gRPC is read."""
        with self._guards.admit_rpc(headers, scope, exchange):
            yield

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
        """End the threads; Serve calls this once the requests have drained."""
        if hasattr(self, "_keeper"):
            DOOR.leave(self._keeper)
        for part in ("_adapters", "_runner", "_guards"):
            if hasattr(self, part):
                getattr(self, part).close()


def _load(
    spec: ServingSpec,
    versions: Sequence[BoundVersion],
    adapters: BoundAdapters | None,
    start: ColdStart,
    **places: Any,
) -> tuple[list[ClassifierRuntime], AdapterSource | None]:
    """Load what is always in memory, and the base of the adapters."""
    runtimes = load_versions(spec, versions, start, **places)
    if adapters is None:
        return runtimes, None
    source = AdapterSource(spec, adapters, start, **places)
    source.share_with(runtimes)
    return runtimes, source


def _spare_the_collector() -> None:
    """Let the garbage collector look at requests alone, and less often.

    Half a million objects of libraries live as long as the process. A full collection looks at all
    of them, which takes a fifth of a second in which nothing is answered.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


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
        reason=runtime.reason,
        left_out=runtime.left_out,
    )
