"""One sweep from spec to report: plan, prepare, run the trials on Ray Tune, report.

A sweep's id is made of its content, so the same submission finds the same folder: a finished sweep
is returned, an interrupted one goes on, and no trial that has ended runs again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.errors import NotFoundError, RunError, UserError
from kovar.registry import Registry
from kovar.settings import Settings
from kovar.training.folder import write_json
from kovar.training.heartbeat import beating
from kovar.training.progress import RunProgress
from kovar.tuning.actor import run_in_actor
from kovar.tuning.execution import Execution
from kovar.tuning.ledger import read_ledger
from kovar.tuning.points import Sweep
from kovar.tuning.preparation import PreparedSweep, prepare_sweep
from kovar.tuning.records import records_of
from kovar.tuning.report import SweepReport, facts_of, write_report
from kovar.tuning.state import SweepState, TrialState

if TYPE_CHECKING:
    from kovar.resources import Cluster
    from kovar.tuning.loop import TrialFunction


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has ended.

    Args:
        report: its trials, ranked.
        folder: with `results.json`, the page, the pictures and the trials.
        stopped: why it ended before its trials did; None if it did not.
        reused: whether it had been finished before.
    """

    report: SweepReport
    folder: Path
    stopped: str | None = None
    reused: bool = False

    @property
    def exit_code(self) -> int:
        """0, or 1 where a trial failed."""
        return 1 if self.report.num_failed else 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return self.report.to_json() | {
            "folder": str(self.folder),
            "stopped": self.stopped,
            "reused": self.reused,
        }


def run_sweep(
    sweep: Sweep,
    *,
    settings: Settings,
    progress: RunProgress | None = None,
    cluster: Cluster | None = None,
    planned: bool = True,
    fresh: bool = False,
    resume: bool = False,
    function: TrialFunction = run_in_actor,
) -> SweepResult:
    """Run every trial and rank the results; go on with, or return, what was submitted before.

    Args:
        sweep: the sweep.
        settings: where runs, caches and the registry live.
        progress: shows what happens; nothing by default.
        cluster: the declared cluster; when absent, the one that this process is connected to, else
            this machine.
        planned: prove that the trials can be placed before anything starts.
        fresh: start anew in a folder of its own.
        resume: go on with an earlier submission; its failed trials get another go.
        function: runs one trial in an actor.

    Raises:
        UserError: an input or the placement of a trial is at fault, there is nothing to resume, or
            another process executes the sweep; no trial has started.
        RunError: no trial finished.
    """
    from filelock import FileLock, Timeout

    progress = progress or RunProgress(quiet=True)
    with Registry.open(settings) as registry:
        with progress.showing():
            prepared = prepare_sweep(
                sweep,
                settings=settings,
                registry=registry,
                progress=progress,
                cluster=cluster,
                planned=planned,
                fresh=fresh,
            )
        folder = prepared.folder
        if resume and not folder.ledger.exists():
            raise NotFoundError(
                f"there is no sweep {folder.sweep} to resume",
                field="--resume",
                hint="its spec, data, base model or library versions have changed since, or it was "
                "never started: leave out --resume",
            )
        folder.root.mkdir(exist_ok=True)
        execution = Execution(prepared, settings, progress, function, retries=resume)
        try:
            with FileLock(folder.lock, timeout=0), beating(folder.heartbeat):
                return _run_locked(execution, retries=resume)
        except Timeout:
            raise UserError(
                f"sweep {folder.sweep} is already being executed by another process",
                hint="wait for it: submitted again afterwards, its result is returned",
            ) from None


def _run_locked(execution: Execution, *, retries: bool) -> SweepResult:
    prepared = execution.prepared
    spec, folder = prepared.sweep.spec, prepared.folder
    state = SweepState.of(read_ledger(folder.ledger))
    has_failed = any(trial.status == "failed" for trial in state.trials.values())
    reused = state.is_finished and not (retries and has_failed)
    if not reused:
        write_json(folder.spec, _as_run(prepared))
        state = execution.run().state
    prices = _Prices(prepared)
    records = records_of(state, spec, price=prices.price_of, now=time.time())
    report = SweepReport(facts_of(spec), records)
    if not reused or not folder.results.exists():
        write_report(report, folder.root)
    stopped = None if state.is_finished else state.closed
    if report.best is None:
        first = next((one for one in records if one.reason), None)
        why = f"; trial {first.number}: {first.reason}" if first else ""
        raise RunError(f"no trial finished{why}", hint=f"see {folder.root}")
    return SweepResult(report, folder.root, stopped, reused)


def _as_run(prepared: PreparedSweep) -> dict[str, Any]:
    sweep = prepared.sweep
    return sweep.spec.model_dump(mode="json") | {"base": sweep.base.model_dump(mode="json")}


class _Prices:
    """Prices of trials, as the plan knows them."""

    def __init__(self, prepared: PreparedSweep) -> None:
        self._prepared = prepared

    def price_of(self, trial: TrialState) -> float | None:
        specs = self._prepared.sweep.trials_of(trial.configuration, trial.point)
        spec = next(one for one in specs if one.number == trial.number)
        node_type = trial.stays[-1].node_type if trial.stays else None
        return self._prepared.plan.price_of(spec, node_type)
