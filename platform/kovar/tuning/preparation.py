"""Everything before the first trial: the plan, the inputs of all trials, and the sweep's folder."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar import __version__
from kovar.config import canonical_json
from kovar.settings import Settings, ensure_writable, is_simulated
from kovar.training.cluster import connected_cluster
from kovar.training.preparation import DECISIVE_PACKAGES, NOT_IN_IDENTITY
from kovar.training.progress import RunProgress
from kovar.tuning.exclusion import Excluded
from kovar.tuning.folder import SweepFolder
from kovar.tuning.inputs import TrialInputs
from kovar.tuning.plan import SweepPlan, plan_sweep, unplanned_sweep
from kovar.tuning.points import Sweep, TrialSpec
from kovar.tuning.spending import price_over_stays

if TYPE_CHECKING:
    from kovar.registry import Registry
    from kovar.resources import Cluster
    from kovar.tuning.state import TrialState

OPEN: Final = frozenset({"budget", "max_concurrent"})
"""Fields of a sweep that change no trial: after a change of them the sweep goes on."""


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep whose inputs are all checked and cached: only the hardware is missing.

    Args:
        sweep: as loaded.
        plan: where its trials go.
        inputs: what its trials start from.
        folder: of the same submission, whether it exists or not.
    """

    sweep: Sweep
    plan: SweepPlan
    inputs: TrialInputs
    folder: SweepFolder

    def spec_of(self, trial: TrialState) -> TrialSpec:
        """Return the whole spec of a trial that the ledger knows."""
        specs = self.sweep.trials_of(trial.configuration, trial.point)
        return next(spec for spec in specs if spec.number == trial.number)

    def price_of(self, trial: TrialState) -> float | None:
        """Return the price per hour of what a trial held; None where none is declared."""
        spec = self.spec_of(trial)
        return price_over_stays(trial, lambda kind: self.plan.price_of(spec, kind), time.time())


def prepare_sweep(
    sweep: Sweep,
    *,
    settings: Settings,
    registry: Registry,
    progress: RunProgress,
    cluster: Cluster | None = None,
    planned: bool = True,
    fresh: bool = False,
) -> PreparedSweep:
    """Check everything, fill the caches and choose the sweep's folder; start nothing.

    Raises:
        UserError: the spec, the data, the model or the placement of a trial is at fault.
    """
    cluster = cluster or connected_cluster()
    if planned:
        plan = plan_sweep(sweep, cluster, settings=settings, registry=registry)
    else:
        plan = unplanned_sweep(sweep, registry=registry)
    ensure_writable(settings.cache_dir, field="cache_dir")
    inputs = TrialInputs(
        base_dir=sweep.base_dir, settings=settings, registry=registry, progress=progress
    )
    found = _found(sweep, plan, inputs)
    runs_dir = ensure_writable(settings.runs_dir, field="runs_dir")
    digest = hashlib.sha256(canonical_json(_identity(sweep, found))).hexdigest()[:10]
    return PreparedSweep(
        sweep, plan, inputs, _folder(runs_dir, f"{sweep.spec.name}-{digest}", fresh=fresh)
    )


def _folder(runs_dir: Path, name: str, *, fresh: bool) -> SweepFolder:
    """Return the newest folder of the submission; a fresh one after a complete one."""
    folder, number = SweepFolder(runs_dir / name), 1
    while (following := SweepFolder(runs_dir / f"{name}-{number + 1}")).root.exists():
        folder, number = following, number + 1
    return following if fresh and folder.ledger.exists() else folder


def _found(sweep: Sweep, plan: SweepPlan, inputs: TrialInputs) -> list[tuple[str, str, str]]:
    """Check every trial that is known, or the corners, against its inputs."""
    found: set[tuple[str, str, str]] = set()
    with sweep.pointing():
        for trial in sweep.examples:
            run = plan.admit(trial)
            if not isinstance(run, Excluded):
                task = inputs.task(trial.spec, folder=Path(), plan=run)
                found.add((task.dataset.fingerprint, task.base.digest, run.device))
    return sorted(found)


def _identity(sweep: Sweep, found: list[tuple[str, str, str]]) -> dict[str, Any]:
    """Return what decides the results; the inputs by their content, the devices by name."""
    packages = (*DECISIVE_PACKAGES, *(("optuna",) if sweep.is_adaptive else ()))
    return {
        "sweep": sweep.spec.model_dump(mode="json", exclude={*OPEN, "base", "warm_start"}),
        "base": sweep.base.model_dump(mode="json", exclude=NOT_IN_IDENTITY),
        "observations": [[one.point, dict(one.scores)] for one in sweep.observations],
        "inputs": found,
        "kovar": __version__,
        "packages": {name: installed_version(name) for name in packages},
        # What a stand-in trained must never be returned for the real chip.
        **({"simulated": True} if is_simulated() else {}),
    }
