"""Everything that stands around one replica's application: the observer, and within it the gate."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kovar.serving.access import Gate, GateMiddleware, Keyring, Scope
from kovar.serving.exchange import Exchange
from kovar.serving.observe import (
    AccessLog,
    Capture,
    JsonLines,
    LogLines,
    Meter,
    Observer,
    ObserverMiddleware,
    ObserveSettings,
    access_log,
    capture,
)
from kovar.serving.observe.meter import RaySink, Reading, Sink
from kovar.serving.observe.retention import Retention
from kovar.serving.protocol import ServedVersion
from kovar.serving.spec import ServingSpec

if TYPE_CHECKING:
    from kovar.inference.runner import BatchRecord, BatchRunner
    from kovar.serving.adapters.readings import AdapterReadings
    from kovar.serving.api import Middleware

LOGGER: Final = "kovar"


class Guards:
    """The guards of one replica.

    Args:
        spec: who may ask, and what is written down.
        served: the versions that the replica serves, the default one first.
        name: of the replica, in the names of its files.
        folder: of its files; None where nothing is to be written.
        sink: what takes the metrics; None where nothing does.
        cold_start: seconds of each stage of the replica's start.

    Raises:
        SettingsError: the file of keys cannot be read: without it nobody could be let in.
    """

    def __init__(
        self,
        spec: ServingSpec,
        served: Sequence[ServedVersion],
        *,
        name: str,
        folder: Path | None,
        sink: Sink | None,
        cold_start: Mapping[str, float] | None = None,
    ) -> None:
        self._opened = spec.access.open
        self._may_sleep = spec.num_replicas.min == 0
        self._served = served
        self._cold_start = dict(cold_start or {})
        self._runners: list[BatchRunner] = []
        self._owners = {(one.model, str(one.version)) for one in served}
        self._adapters: AdapterReadings | None = None
        self.gate = Gate(Keyring(Path(spec.access.keys)) if spec.access.keys else None)
        self._lines = _lines_of(spec.observe, name, folder)
        self._capture = _capture_of(spec.observe, name, folder)
        self._retention = _retention_of(spec.observe, folder)
        self._meter = Meter(sink, gauges=self._gauges, counts=self._sums) if sink else None
        first = served[0]
        self.observer = Observer(
            log=AccessLog(self._lines) if self._lines else None,
            meter=self._meter,
            capture=self._capture,
            version=(first.model, str(first.version), first.digest),
        )
        self._messages = LogLines(self._lines) if self._lines else None
        self._level = logging.getLogger(LOGGER).level
        if self._messages is not None:
            logger = logging.getLogger(LOGGER)
            logger.addHandler(self._messages)
            logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))

    @property
    def middlewares(self) -> tuple[Middleware, ...]:
        """What goes around the HTTP application, the outermost first."""
        return (
            partial(ObserverMiddleware, observer=self.observer),
            partial(GateMiddleware, gate=self.gate, opened=self._opened),
        )

    @contextmanager
    def admit_rpc(
        self, headers: Mapping[str, str], scope: Scope | None, exchange: Exchange
    ) -> Iterator[None]:
        """Watch one call of gRPC and let it in for as long as the context is open.

        Args:
            headers: the call's metadata, with names in lower case.
            scope: what the call needs of a key; None for a question about health.
            exchange: what is known of the call.

        Raises:
            RequestError: as `Gate.admit`.
        """
        needed = "metadata" if scope is None and "health" not in self._opened else scope
        if needed == "metadata" and "metadata" in self._opened:
            needed = None
        with self.observer.watch(exchange), self.gate.admit(headers, needed) as key:
            exchange.key_id = key.id if key else None
            yield

    def watch(self, runner: BatchRunner) -> None:
        """Read this runner's queue for the metrics."""
        self._runners.append(runner)

    def watch_adapters(self, readings: AdapterReadings) -> None:
        """Read which adapters are in memory for the metrics."""
        self._adapters = readings

    def on_batch(self, record: BatchRecord) -> None:
        """Note a batch that ran."""
        if self._meter is not None:
            self._meter.batch(record)

    def close(self) -> None:
        """Write what waits, once the last request has ended."""
        if self._messages is not None:
            logging.getLogger(LOGGER).removeHandler(self._messages)
            logging.getLogger(LOGGER).setLevel(self._level)
        self.observer.close()
        if self._retention is not None:
            self._retention.close()

    def _gauges(self) -> list[Reading]:
        readings: list[Reading] = [("kovar_running_requests", {}, self.observer.num_running)]
        readings += self._queued()
        for load in (runner.load() for runner in self._runners):
            # Absent before the first batch.
            if load.tokens_per_s is not None and load.light_s is not None:
                readings.append(("kovar_tokens_per_s", {}, load.tokens_per_s))
                readings.append(("kovar_light_batch_s", {}, load.light_s))
        readings.append(("kovar_may_sleep", {}, int(self._may_sleep)))
        for stage, seconds in self._cold_start.items():
            readings.append(("kovar_cold_start_seconds", {"stage": stage}, seconds))
        for one in self._served:
            version = {"model": one.model, "version": str(one.version)}
            facts = {"digest": one.digest, "runtime": one.runtime, "precision": one.precision}
            readings.append(("kovar_version_info", version | facts, 1))
            # A replica whose golden examples differ does not start.
            readings.append(("kovar_golden_check", version, 1))
            for runtime in one.left_out:
                readings.append(("kovar_runtime_left_out", version | {"runtime": runtime}, 1))
        return readings + (self._adapters.gauges() if self._adapters else [])

    def _queued(self) -> list[Reading]:
        """Tell what waits for each version, and 0 where nothing does any more."""
        queued = [runner.queued() for runner in self._runners]
        self._owners |= {owner for one in queued for owner in one}
        readings: list[Reading] = []
        for owner in sorted(self._owners):
            version = {"model": owner[0], "version": owner[1]}
            found = [one[owner] for one in queued if owner in one]
            texts, tokens = sum(q.num_texts for q in found), sum(q.num_tokens for q in found)
            readings.append(("kovar_queued_texts", version, texts))
            readings.append(("kovar_queued_tokens", version, tokens))
        return readings

    def _sums(self) -> list[Reading]:
        name = "kovar_lost_records"
        lines = self._lines.num_lost if self._lines else 0
        samples = self._capture.num_dropped if self._capture else 0
        losses: list[Reading] = [
            (name, {"what": "line"}, lines),
            (name, {"what": "sample"}, samples),
        ]
        return losses + (self._adapters.counts() if self._adapters else [])


def replica_guards(
    spec: ServingSpec, served: Sequence[ServedVersion], *, cold_start: Mapping[str, float]
) -> Guards:
    """Return the guards of the replica that this process is; call it in its constructor.

    Outside of Serve there are no metrics, and files only where the spec names a folder.

    Args:
        spec: who may ask, and what is written down.
        served: the versions that the replica serves.
        cold_start: seconds of each stage of its start.

    Raises:
        SettingsError: as `Guards`.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        context = serve.get_replica_context()
    except RayServeException:
        return Guards(spec, served, name=f"process-{os.getpid()}", folder=None, sink=None)
    from ray.serve._private.logging_utils import get_serve_logs_dir

    name = f"{context.app_name}-{context.replica_tag}"
    sink = RaySink() if spec.observe.metrics else None
    folder = Path(get_serve_logs_dir())
    return Guards(spec, served, name=name, folder=folder, sink=sink, cold_start=cold_start)


def _lines_of(settings: ObserveSettings, name: str, folder: Path | None) -> JsonLines | None:
    into = Path(settings.folder).expanduser() if settings.folder else folder
    if not settings.access_log or into is None:
        return None
    return JsonLines(
        into / f"access-{name}.jsonl",
        max_bytes=settings.max_file_bytes,
        num_files=settings.num_files,
    )


def _retention_of(settings: ObserveSettings, folder: Path | None) -> Retention | None:
    """Remove what is old also where nothing is written any more."""
    into = Path(settings.folder).expanduser() if settings.folder else folder
    if into is None:
        return None
    days = {access_log.FILES: settings.keep_days, capture.FILES: settings.capture.keep_days}
    return Retention(into, days)


def _capture_of(settings: ObserveSettings, name: str, folder: Path | None) -> Capture | None:
    into = Path(settings.folder).expanduser() if settings.folder else folder
    if settings.capture.share == 0 or into is None:
        return None
    return Capture(settings.capture, into, name=name, max_file_bytes=settings.max_file_bytes)
