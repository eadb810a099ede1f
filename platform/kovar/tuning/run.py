"""Run a sweep on Ray Tune: data and base model prepared once, one engine per trial."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from kovar.errors import RunError
from kovar.events import EventLog, read_events
from kovar.registry import Registry
from kovar.resources import Demand, trial_resources
from kovar.resources.pending import WaitLimits
from kovar.resources.watchdog import Watchdog
from kovar.settings import Settings, ensure_writable
from kovar.training.cluster import connected_cluster, start_ray, wait_limits
from kovar.training.device import rank_device
from kovar.training.folder import RunFolder, write_json
from kovar.training.heartbeat import beating
from kovar.training.preparation import prepare_inputs
from kovar.training.progress import RunProgress
from kovar.training.task import WorkerTask
from kovar.training.worker import execute
from kovar.tuning.plan import plan_sweep, trial_groups
from kovar.tuning.points import Sweep, TrialSpec
from kovar.tuning.report import SweepReport, TrialOutcome

if TYPE_CHECKING:
    from kovar.events import EventKind
    from kovar.resources import Cluster, Request


def run_sweep(
    sweep: Sweep,
    *,
    settings: Settings,
    progress: RunProgress | None = None,
    cluster: Cluster | None = None,
    planned: bool = True,
) -> tuple[SweepReport, Path]:
    """Run every trial and rank the results.

    Args:
        sweep: the sweep.
        settings: where runs, caches and the registry live.
        progress: shows what happens; nothing by default.
        cluster: the declared cluster; when absent, the one that this process is connected to, else
            this machine.
        planned: prove that the trials can be placed before anything starts.

    Returns:
        The report, and the sweep's folder with `results.json`, the best trial's model and
        TensorBoard's event files.

    Raises:
        UserError: an input or the placement of a trial is at fault; no trial has started.
        RunError: no trial finished.
    """
    progress = progress or RunProgress(quiet=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    root = ensure_writable(settings.runs_dir, field="runs_dir") / f"{sweep.spec.name}-{stamp}"
    with progress.showing():
        cluster = cluster or connected_cluster()
        max_concurrent = sweep.spec.limit
        if planned:
            max_concurrent = plan_sweep(sweep, cluster).num_at_once
        with Registry.open(settings) as registry:
            tasks = [
                _task(trial, sweep, root, settings, registry, progress, cluster, planned=planned)
                for trial in sweep.trials
            ]
        root.mkdir(parents=True)
        with beating(RunFolder(root).heartbeat):
            _run_on_tune(
                tasks,
                sweep,
                root,
                progress,
                limits=wait_limits(settings),
                max_concurrent=max_concurrent,
            )
    outcomes = tuple(_outcome(trial, task) for trial, task in zip(sweep.trials, tasks, strict=True))
    report = SweepReport(sweep.spec, outcomes)
    for outcome, task in zip(outcomes, tasks, strict=True):
        if outcome != report.best:
            shutil.rmtree(RunFolder(task.folder).model, ignore_errors=True)
        shutil.rmtree(RunFolder(task.folder).checkpoints, ignore_errors=True)
    write_json(root / "results.json", report.to_json())
    if report.best is None:
        first = outcomes[0]
        raise RunError(f"no trial finished; trial 1: {first.error}", hint=f"see {root}")
    return report, root


def _task(
    trial: TrialSpec,
    sweep: Sweep,
    root: Path,
    settings: Settings,
    registry: Registry,
    progress: RunProgress,
    cluster: Cluster | None,
    *,
    planned: bool,
) -> WorkerTask:
    with sweep.pointing():
        base, dataset, plan = prepare_inputs(
            trial.spec,
            base_dir=sweep.base_dir,
            settings=settings,
            registry=registry,
            progress=progress,
            cluster=cluster,
            planned=planned,
        )
    return WorkerTask(
        spec=trial.spec,
        folder=root / trial.name,
        dataset=dataset,
        base=base,
        request=plan.request,
        num_threads=max(1, int(plan.request.cpus)),
    )


def _run_on_tune(
    tasks: list[WorkerTask],
    sweep: Sweep,
    root: Path,
    progress: RunProgress,
    *,
    limits: WaitLimits,
    max_concurrent: int | None,
) -> None:
    """Run the trials; those that cannot start are given up, and their logs say why."""
    start_ray()
    watchdog = Watchdog(
        _demands(sweep),
        limits=limits,
        tell=lambda waited_s, reason: progress.say(
            f"  waiting for {waited_s:.0f} s: {escape(reason)}"
        ),
        # While a trial runs, the others wait for it.
        is_waiting=lambda gangs, num_held: bool(gangs) and not num_held,
    )
    with (
        progress.counting(
            "trials", total=len(tasks), count=lambda: sum(_has_ended(task) for task in tasks)
        ),
        watchdog,
    ):
        _tuner(
            tasks,
            sweep,
            root,
            max_concurrent=max_concurrent,
            has_given_up=lambda: watchdog.given_up is not None,
        ).fit()
    if watchdog.given_up is not None:
        for task in tasks:
            if not _has_ended(task):
                folder = RunFolder(task.folder)
                with EventLog(folder.events, run=folder.run) as log:
                    log.emit("failed", error=RunError.__name__, message=str(watchdog.given_up))


def _demands(sweep: Sweep) -> list[Demand]:
    """List what single trials ask for; mostly all the same."""
    return [replace(group.demand, num_max=1) for group in trial_groups(sweep)]


def _has_ended(task: WorkerTask) -> bool:
    folder = RunFolder(task.folder)
    return folder.metrics.exists() or any(
        event["event"] == "failed" for event in read_events(folder.events)
    )


def _tuner(
    tasks: list[WorkerTask],
    sweep: Sweep,
    root: Path,
    *,
    max_concurrent: int | None,
    has_given_up: Callable[[], bool],
) -> Any:
    # Kovar prints its own table; with this, Tune's verbosity of 0 really prints nothing.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    from ray import tune

    def name_of(trial: Any) -> str:
        return f"trial-{trial.config['trial'] + 1:04d}"

    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, tasks=tasks),
            lambda config: _tune_resources(tasks[config["trial"]].request),
        ),
        param_space={
            "trial": tune.grid_search(list(range(len(tasks)))),
        },
        tune_config=tune.TuneConfig(
            metric=sweep.spec.metric,
            mode=sweep.spec.mode,
            max_concurrent_trials=max_concurrent,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(root),
            verbose=0,
            stop=_stopper(has_given_up),
            # A trial that starts again goes on from its newest checkpoint.
            failure_config=tune.FailureConfig(
                max_failures=max(task.spec.max_failures for task in tasks)
            ),
        ),
    )


def _stopper(has_given_up: Callable[[], bool]) -> Any:
    from ray import tune

    class GivenUp(tune.Stopper):  # type: ignore[misc]
        """Ends the whole sweep, and never a single trial."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return has_given_up()

        def __reduce__(self) -> Any:
            """Tune keeps a copy to restore a sweep from, in which nothing is given up."""
            return tune.stopper.NoopStopper, ()

    return GivenUp()


def run_trial(config: dict[str, Any], *, tasks: list[WorkerTask]) -> None:
    """Run one trial in a Tune actor and report its evaluations to Tune."""
    import ray.train.torch
    import torch
    from ray import tune

    task = tasks[config["trial"]]

    def observe(event: EventKind, **fields: Any) -> None:
        if event == "evaluated":
            scores = {k: v for k, v in fields["metrics"].items() if isinstance(v, float)}
            tune.report({**scores, "step": fields["step"]})

    device = rank_device(lambda: torch.device("cuda" if ray.get_gpu_ids() else "cpu"))
    execute(task, device=device, observe=observe)


def _tune_resources(request: Request) -> Any:
    from ray import tune

    return tune.PlacementGroupFactory(**trial_resources(request, field="resources.worker"))


def _outcome(trial: TrialSpec, task: WorkerTask) -> TrialOutcome:
    folder = RunFolder(task.folder)
    events = list(read_events(folder.events))
    seconds = sum(e["seconds"] for e in events if e["event"] == "step")
    if folder.metrics.exists():
        trained = json.loads(folder.metrics.read_text())
        scores = {k: v for k, v in trained["evaluation"].items() if isinstance(v, float)}
        return TrialOutcome(
            trial.number, trial.point, "finished", scores, trained["precision"], seconds
        )
    failures = [e["message"] for e in events if e["event"] == "failed"]
    error = failures[-1].partition("\n")[0] if failures else "ended without a result"
    return TrialOutcome(trial.number, trial.point, "failed", {}, None, seconds, error)
