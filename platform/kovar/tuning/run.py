"""One sweep from spec to report: plan, prepare, run the trials on Ray Tune, report.

A sweep's id is made of its content, so the same submission finds the same folder: a finished sweep
is returned, an interrupted one goes on, and no trial that has ended runs again.
"""

from __future__ import annotations

import json
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
from kovar.tuning.record import TrialRecord
from kovar.tuning.records import records_of
from kovar.tuning.registration import Winner, promote_winner, register_winner
from kovar.tuning.report import SweepReport, facts_of, write_report
from kovar.tuning.state import SweepState
from kovar.tuning.trial import TrialEnd, drop_weights

if TYPE_CHECKING:
    from kovar.registry import Version
    from kovar.resources import Cluster
    from kovar.tuning.loop import TrialFunction


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has ended.

    Args:
        report: its trials, ranked.
        folder: with `results.json`, the page, the pictures and the trials.
        version: what its best trial became; None where a function of the caller's own left no
            weights.
        stopped: why it ended before its trials did; None if it did not.
        reused: whether it had been finished before.
    """

    report: SweepReport
    folder: Path
    version: Version | None
    stopped: str | None = None
    reused: bool = False

    @property
    def exit_code(self) -> int:
        """0, or 1 where a trial failed."""
        return 1 if self.report.num_failed else 0

    def summary(self) -> list[str]:
        """Return what a user wants to know beside the table, a fact a line."""
        version = self.version
        facts = {
            "version": f"{version.model}@{version.number}" if version else "none",
            "digest": version.digest if version else "none",
            "sweep": f"{self.folder}{' (finished before)' if self.reused else ''}",
            "report": str(self.folder / "report.html"),
            "TensorBoard": f"tensorboard --logdir {self.folder / 'tensorboard'}",
        }
        ended = self.report.counts
        bad = {name: ended[name] for name in ("failed", "diverged", "unfinished") if name in ended}
        if bad:
            told = ", ".join(f"{number} {name}" for name, number in bad.items())
            facts["not all well"] = f"{told} of {len(self.report.trials)} trials"
        if self.stopped:
            facts["stopped"] = f"{self.stopped}; submitted again it goes on"
        return [f"{name:<12} {fact}" for name, fact in facts.items()]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return self.report.to_json() | {
            "folder": str(self.folder),
            "model": self.version.model if self.version else None,
            "version": self.version.number if self.version else None,
            "digest": self.version.digest if self.version else None,
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
    promote: str | None = None,
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
        promote: alias that is pointed at the best trial's version, through the alias's gates.
        function: runs one trial in an actor.

    Raises:
        GateError: a gate refuses the promotion; the version is registered.
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
                result = _run_locked(execution, registry, retries=resume)
                if promote is not None and result.version is not None:
                    promote_winner(registry, result.version, promote, sweep=folder.sweep)
                return result
        except Timeout:
            raise UserError(
                f"sweep {folder.sweep} is already being executed by another process",
                hint="wait for it: submitted again afterwards, its result is returned",
            ) from None


def _run_locked(execution: Execution, registry: Registry, *, retries: bool) -> SweepResult:
    prepared = execution.prepared
    spec, folder = prepared.sweep.spec, prepared.folder
    state = SweepState.of(read_ledger(folder.ledger))
    has_failed = any(trial.status == "failed" for trial in state.trials.values())
    reused = state.is_finished and not (retries and has_failed)
    if not reused:
        # What was found before is out of date from here on, however this driver ends.
        folder.results.unlink(missing_ok=True)
        write_json(folder.spec, _as_run(prepared))
        state = execution.run().state
    records = records_of(state, spec, price=prepared.price_of, now=time.time())
    report = SweepReport(facts_of(spec), records)
    if not reused or not folder.results.exists():
        write_report(report, folder.root)
    if report.best is None:
        first = next((one for one in records if one.reason), None)
        why = f"; trial {first.number}: {first.reason}" if first else ""
        execution.progress.console.print(report.table())
        raise RunError(f"no trial finished{why}", hint=f"see {folder.root}")
    version = _version(execution, report, state, registry)
    stopped = None if state.is_finished else state.closed
    return SweepResult(report, folder.root, version, stopped, reused)


def _version(
    execution: Execution, report: SweepReport, state: SweepState, registry: Registry
) -> Version | None:
    """Return what the best trial became; register it unless that was done."""
    folder, best = execution.prepared.folder, _winner(report, state)
    end = TrialEnd.of(state.trials[best.number].end or {})
    if end.weights is None and execution.function is not run_in_actor:
        return None
    rivals = [trial for trial in report.ranked if trial is not best]
    version = _registered(execution, best, registry)
    if version is None:
        spec = execution.prepared.spec_of(state.trials[best.number])
        winner = Winner(execution.task(spec, weights_bar=None), end, folder.sweep, rivals)
        version = register_winner(winner, registry, execution.progress).version
        told = {"trial": best.number, "model": version.model, "digest": version.digest}
        write_json(folder.result, told | {"version": version.number})
    # With a seed that may still go on, another configuration may become the best.
    if state.is_finished and not report.num_failed:
        for trial in rivals:
            drop_weights(folder.trial(trial.number))
    return version


def _registered(execution: Execution, best: TrialRecord, registry: Registry) -> Version | None:
    """Return what the best trial became before; None if it has not."""
    path = execution.prepared.folder.result
    if not path.exists():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return (
        registry.version(known["model"], known["digest"]) if known["trial"] == best.number else None
    )


def _winner(report: SweepReport, state: SweepState) -> TrialRecord:
    """Return the best trial; of equal ones the first whose weights were kept."""
    best = report.best
    assert best is not None  # noqa: S101 (for the type checker)
    equal = [
        trial
        for trial in report.ranked
        if trial.status == "finished"
        and report.merit(trial) == report.merit(best)
        and (state.trials[trial.number].end or {}).get("weights")
    ]
    return best if best in equal else next(iter(equal), best)


def _as_run(prepared: PreparedSweep) -> dict[str, Any]:
    sweep = prepared.sweep
    return sweep.spec.model_dump(mode="json") | {"base": sweep.base.model_dump(mode="json")}
