"""What the metrics tell about adapters."""

from __future__ import annotations

from collections.abc import Sequence

from kovar.serving.adapters.model import AdapterModel
from kovar.serving.adapters.pool import AdapterPool
from kovar.serving.observe.meter import Reading


class AdapterReadings:
    """The numbers of a replica's adapters.

    Args:
        models: the adapters that may be asked for.
        pool: what holds them.
    """

    def __init__(self, models: Sequence[AdapterModel], pool: AdapterPool) -> None:
        self._models = tuple(models)
        self._pool = pool

    def gauges(self) -> list[Reading]:
        """Return which adapters are in memory, and whether they reproduced their examples."""
        loaded = {version.digest for version in self._pool.loaded}
        readings: list[Reading] = []
        for one in (model.served for model in self._models):
            version = {"model": one.model, "version": str(one.version)}
            facts = {"digest": one.digest, "runtime": one.runtime, "precision": one.precision}
            readings.append(("kovar_version_info", version | facts, 1))
            readings.append(("kovar_adapter_loaded", version, float(one.digest in loaded)))
            golden = self._pool.golden(one.digest)
            if golden is not None:
                readings.append(("kovar_golden_check", version, float(golden)))
        return readings

    def counts(self) -> list[Reading]:
        """Return how often adapters were loaded and went, and how long loading took."""
        pool = self._pool
        return [
            ("kovar_adapter_loads", {"outcome": "loaded"}, pool.num_loads),
            ("kovar_adapter_loads", {"outcome": "failed"}, pool.num_failures),
            ("kovar_adapter_evictions", {}, pool.num_evictions),
            ("kovar_adapter_loading_seconds", {}, pool.loading_s),
        ]
