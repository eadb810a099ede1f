"""Trials that are left out: their chip lacks the precision, or their memory is too small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.errors import SpecError
from kovar.models import known_config
from kovar.resources import Cluster, Placement
from kovar.training.fit import MemoryFit, check_fit, check_known_base
from kovar.training.padding import check_padding
from kovar.training.parallel import check_tensor_plan
from kovar.training.plan import RunPlan, placed_run
from kovar.tuning.memory_fits import MemoryFits
from kovar.tuning.points import TrialSpec

if TYPE_CHECKING:
    from kovar.models import ModelSpec
    from kovar.registry import Registry


@dataclass(frozen=True)
class Excluded:
    """A trial that cannot run where it would be placed.

    Args:
        trial: as it would be.
        error: what a run of its spec alone would be refused with.
    """

    trial: TrialSpec
    error: SpecError

    @property
    def reason(self) -> str:
        """Why, in one line."""
        allowed = self.error.context["allowed"]
        return f"{self.error.message}{f'; allowed: {allowed}' if allowed else ''}"


@dataclass(frozen=True)
class Admitted:
    """A trial that can run.

    Args:
        trial: as it will be.
        run: where, and in which precision.
        fit: its memory; None where that cannot be told.
    """

    trial: TrialSpec
    run: RunPlan
    fit: MemoryFit | None


@dataclass(frozen=True)
class Configurations:
    """The config.json of base models, each looked up once, and the memory of trials.

    Args:
        base_dir: folder that relative paths start from.
        registry: needed for `version:` models alone.
        fits: estimates of memory.
    """

    base_dir: Path
    registry: Registry | None = None
    fits: MemoryFits = field(default_factory=MemoryFits)
    _known: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)

    def of(self, model: ModelSpec) -> Mapping[str, Any] | None:
        """Return the configuration; None where it is known after a download only."""
        key = model.model_dump_json()
        if key not in self._known:
            self._known[key] = known_config(model, base_dir=self.base_dir, registry=self.registry)
        return self._known[key]


def examine(
    trial: TrialSpec,
    demand: str,
    placement: Placement,
    cluster: Cluster,
    configurations: Configurations,
) -> Admitted | Excluded:
    """Hold a trial against the chip and the memory where a placement puts its hardware."""
    spec = trial.spec
    try:
        run = placed_run(spec, demand, placement, cluster)
        config = configurations.of(spec.model)
        if config is None:
            return Admitted(trial, run, None)
        check_known_base(spec, config)
        check_tensor_plan(spec, config)
        check_padding(spec.training.padding_free, config)
        fit = configurations.fits.of(spec, run, config)
        check_fit(spec, fit)
    except SpecError as error:
        return Excluded(trial, error)
    return Admitted(trial, run, fit)
