"""Everything that stands around one replica's application: the observer, and within it the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.serving.access import Gate, GateMiddleware, Keyring
from kovar.serving.observe import (
    AccessLog,
    Capture,
    JsonLines,
    LogLines,
    Meter,
    Observer,
    ObserverMiddleware,
)
from kovar.serving.observe.meter import RaySink, Reading
from kovar.serving.protocol import ServedVersion
from kovar.serving.spec import ServingSpec

if TYPE_CHECKING:
    from kovar.inference.runner import BatchRecord
    from kovar.serving.api import Middleware

LOGGER: Final = "kovar"


class Guards:
    """The guards of one replica.

    Args:
        spec: who may ask, and what is written down.
        served: the versions that the replica serves, the default one first.
        name: of the replica, in the names of its files.
        folder: of its files, where the spec names none.
        gauges: gives further readings at every flush of the metrics.
        has_ray: whether Ray takes the metrics.

    Raises:
        SettingsError: the file of keys cannot be read: without it nobody could be let in.
    """

    def __init__(
        self,
        spec: ServingSpec,
        served: tuple[ServedVersion, ...],
        *,
        name: str,
        folder: Path,
        gauges: Callable[[], list[Reading]] = list,
        has_ray: bool = True,
    ) -> None:
        access, observe = spec.access, spec.observe
        self._opened = access.open
        self._served = served
        self._more_gauges = gauges
        self.gate = Gate(Keyring(Path(access.keys)) if access.keys else None)
        folder = Path(observe.folder).expanduser() if observe.folder else folder
        self._lines = JsonLines(
            folder / f"access-{name}.jsonl",
            max_bytes=observe.max_file_bytes,
            num_files=observe.num_files,
        )
        capture = None
        if observe.capture.share > 0:
            capture = Capture(
                observe.capture, folder, name=name, max_file_bytes=observe.max_file_bytes
            )
        self._capture = capture
        meter = Meter(RaySink(), gauges=self._gauges) if observe.metrics and has_ray else None
        self._meter = meter
        first = served[0]
        self.observer = Observer(
            log=AccessLog(self._lines) if observe.access_log else None,
            meter=meter,
            capture=capture,
            version=(first.model, str(first.version), first.digest),
        )
        self._messages = LogLines(self._lines) if observe.access_log else None
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

    def on_batch(self, record: BatchRecord) -> None:
        """Note a batch that ran."""
        if self._meter is not None:
            self._meter.batch(record)

    def close(self) -> None:
        """Write what waits, once the last request has ended."""
        if self._messages is not None:
            logging.getLogger(LOGGER).removeHandler(self._messages)
        self.observer.close()

    def _gauges(self) -> list[Reading]:
        readings: list[Reading] = [
            ("kovar_running_requests", {}, float(self.observer.num_running))
        ]
        for one in self._served:
            version = {"model": one.model, "version": str(one.version)}
            facts: dict[str, Any] = {
                "digest": one.digest,
                "runtime": one.runtime,
                "precision": one.precision,
            }
            readings.append(("kovar_version_info", version | facts, 1.0))
            # A replica whose golden examples differ does not start.
            readings.append(("kovar_golden_check", version, 1.0))
        return readings + self._more_gauges()
