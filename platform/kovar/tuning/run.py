"""Run a sweep on Ray Tune: data and base model prepared once, one engine per trial."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.errors import RunError
from kovar.events import read_events
from kovar.registry import Registry
from kovar.resources import actor_options
from kovar.settings import Settings, ensure_writable
from kovar.training.cluster import start_ray
from kovar.training.folder import RunFolder, write_json
from kovar.training.heartbeat import beating
from kovar.training.preparation import prepare_inputs
from kovar.training.progress import RunProgress
from kovar.training.task import WorkerTask
from kovar.training.worker import execute
from kovar.tuning.points import Sweep, TrialSpec
from kovar.tuning.report import SweepReport, TrialOutcome

if TYPE_CHECKING:
    from kovar.events import EventKind
    from kovar.resources import Cluster


def run_sweep(
    sweep: Sweep,
    *,
    settings: Settings,
    progress: RunProgress | None = None,
    cluster: Cluster | None = None,
) -> tuple[SweepReport, Path]:
    """Run every trial and rank the results.

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
        with Registry.open(settings) as registry:
            tasks = [
                _task(trial, sweep, root, settings, registry, progress, cluster)
                for trial in sweep.trials
            ]
        root.mkdir(parents=True)
        with beating(RunFolder(root).heartbeat):
            _run_on_tune(tasks, sweep, root, progress)
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
) -> WorkerTask:
    with sweep.pointing():
        base, dataset, _ = prepare_inputs(
            trial.spec,
            base_dir=sweep.base_dir,
            settings=settings,
            registry=registry,
            progress=progress,
            cluster=cluster,
        )
    return WorkerTask(
        spec=trial.spec,
        folder=root / trial.name,
        dataset=dataset,
        base=base,
        num_threads=max(1, int(trial.spec.resources.worker.cpus)),
    )


def _run_on_tune(tasks: list[WorkerTask], sweep: Sweep, root: Path, progress: RunProgress) -> None:

    start_ray()
    with progress.counting(
        "trials", total=len(tasks), count=lambda: sum(_has_ended(task) for task in tasks)
    ):
        _tuner(tasks, sweep, root).fit()


def _has_ended(task: WorkerTask) -> bool:
    folder = RunFolder(task.folder)
    return folder.metrics.exists() or any(
        event["event"] == "failed" for event in read_events(folder.events)
    )


def _tuner(tasks: list[WorkerTask], sweep: Sweep, root: Path) -> Any:
    # Kovar prints its own table; with this, Tune's verbosity of 0 really prints nothing.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    from ray import tune

    def name_of(trial: Any) -> str:
        return f"trial-{trial.config['trial'] + 1:04d}"

    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(run_trial, tasks=tasks),
            lambda config: _tune_resources(tasks[config["trial"]]),
        ),
        param_space={
            "trial": tune.grid_search(list(range(len(tasks)))),
        },
        tune_config=tune.TuneConfig(
            metric=sweep.spec.metric,
            mode=sweep.spec.mode,
            max_concurrent_trials=sweep.spec.max_concurrent,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(root),
            verbose=0,
            # A trial that starts again goes on from its newest checkpoint.
            failure_config=tune.FailureConfig(
                max_failures=max(task.spec.max_failures for task in tasks)
            ),
        ),
    )


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

    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    execute(task, device=device, observe=observe)


def _tune_resources(task: WorkerTask) -> Any:
    from ray import tune

    options = actor_options(task.spec.resources.worker, field="resources.worker")
    bundle = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0)}
    bundle |= {"memory": options["memory"]} if "memory" in options else {}
    bundle |= options.get("resources", {})
    if "accelerator_type" in options:
        bundle[f"accelerator_type:{options['accelerator_type']}"] = 0.001
    return tune.PlacementGroupFactory([bundle])


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
