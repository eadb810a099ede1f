"""One run from spec to registered version: plan, prepare, train on Ray Train, register.

A run's id is made of its content (spec, data, base model, library versions, chip), so the same
submission finds the same folder: a finished run is returned, an interrupted one is resumed, and
nothing is trained twice.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar import errors
from kovar.errors import KovarError, RunError, UserError
from kovar.events import EventLog, read_events
from kovar.settings import Settings
from kovar.training.cluster import train_on_ray
from kovar.training.curve import draw_curve
from kovar.training.folder import RunFolder, write_json
from kovar.training.heartbeat import beating
from kovar.training.history.page import keeping_page
from kovar.training.mirror import Mirror
from kovar.training.preparation import Prepared, prepare
from kovar.training.progress import RunProgress
from kovar.training.registration import point_alias, register_run
from kovar.training.spec import FineTuneSpec
from kovar.training.task import WorkerTask
from kovar.training.tasks import TASKS, title
from kovar.training.trackers import TrackedRun, check_trackers, tracking
from kovar.training.worker import execute

if TYPE_CHECKING:
    from kovar.registry import Registry, Version
    from kovar.resources import Cluster


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    folder: RunFolder
    version: Version
    reused: bool
    """Whether the run had been finished before."""
    adapter: Version | None = None
    """The adapter that `version` was merged of, where the spec asks for both."""

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics on the evaluation split."""
        return dict(self.version.manifest.metrics["evaluation"])

    def _scores(self) -> dict[str, str]:
        """Return the metrics that training watched, but for the loss."""
        metrics, of = self.metrics, self.version.manifest.signature.task
        watched = next(task.metrics for name, task in TASKS.items() if name == of)
        return {
            title(name): f"{metrics[name]:.4f}"
            for name in watched
            if name in metrics and (name != "loss" or len(watched) == 1)
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "run": self.folder.run,
            "folder": str(self.folder.root),
            "model": self.version.model,
            "version": self.version.number,
            "digest": self.version.digest,
            "metrics": self.version.manifest.metrics,
            "adapter": None if self.adapter is None else self.adapter.digest,
            "reused": self.reused,
        }

    def summary(self) -> str:
        """Return what a user wants to know first, a fact a line."""
        facts = {
            "version": f"{self.version.model}@{self.version.number}",
            "digest": self.version.digest,
            **({"adapter": f"{self.adapter.model}@{self.adapter.number}"} if self.adapter else {}),
            **self._scores(),
            "run": f"{self.folder.root}{' (finished before)' if self.reused else ''}",
            "curve": str(self.folder.curve),
            "card": str(self.folder.card),
        }
        return "\n".join(f"{name:<9} {fact}" for name, fact in facts.items())


def run(
    spec: FineTuneSpec,
    *,
    base_dir: Path,
    settings: Settings,
    progress: RunProgress | None = None,
    cluster: Cluster | None = None,
    fresh: bool = False,
    planned: bool = True,
    in_process: bool = False,
) -> RunResult:
    """Fine-tune, evaluate and register; resume or return what an earlier submission did.

    Args:
        spec: the run.
        base_dir: folder that relative paths in the spec start from.
        settings: where runs, caches and the registry live.
        progress: shows what happens; nothing by default.
        cluster: the declared cluster; when absent, the one that this process is connected to,
            else this machine.
        fresh: train again even if the same run is finished; an unfinished repetition is resumed.
        planned: prove that the run can be placed before anything starts; otherwise it is given up
            when its workers have waited too long.
        in_process: train one rank in this process, without Ray.

    Raises:
        UserError: the spec, the data, the model or the placement is at fault; nothing has started.
        RunError: training failed more often than `max_failures` allows, or deterministically.
    """
    from filelock import FileLock, Timeout

    from kovar.registry import Registry

    progress = progress or RunProgress(quiet=True)
    check_trackers(settings.trackers)
    began = time.monotonic()
    with progress.showing(), Registry.open(settings) as registry:
        prepared = prepare(
            spec,
            base_dir=base_dir,
            settings=settings,
            registry=registry,
            progress=progress,
            cluster=cluster,
            fresh=fresh,
            planned=planned,
        )
        folder = prepared.folder
        seconds = time.monotonic() - began
        tracked = TrackedRun(folder.run, spec.name, spec.model_dump(mode="json"), folder.root)
        try:
            with (
                FileLock(folder.lock, timeout=0),
                keeping_page(folder),
                beating(folder.heartbeat),
                tracking(settings.trackers, tracked),
            ):
                return _run_locked(
                    prepared,
                    registry,
                    progress,
                    seconds,
                    settings,
                    in_process=in_process,
                )
        except Timeout:
            raise UserError(
                f"run {folder.run} is already being executed by another process",
                hint="wait for it: submitted again afterwards, its result is returned",
            ) from None


def _run_locked(
    prepared: Prepared,
    registry: Registry,
    progress: RunProgress,
    seconds: float,
    settings: Settings,
    *,
    in_process: bool,
) -> RunResult:
    from kovar.registry import card

    folder, spec = prepared.folder, prepared.spec
    root = settings.checkpoint_mirror
    mirror = None if root is None else Mirror.open(root, folder.run)
    announced = _announced(folder)
    trained = folder.metrics.exists() and folder.model.exists()
    with EventLog(folder.events, run=folder.run) as log:
        if not trained:
            log.emit("queued", spec=spec.name, kind=spec.kind)
            log.emit("prepared", seconds=seconds, spans=progress.spans)
            plan = prepared.plan.to_json()
            log.emit("planned", num_workers=spec.resources.num_workers.max, **plan)
            folder.metrics.unlink(missing_ok=True)
            write_json(folder.plan, plan)
            write_json(folder.spec, spec.model_dump(mode="json"))
            _train(prepared, log, progress, settings, in_process=in_process)
        draw_curve(folder.events, folder.curve, title=f"{spec.name} · {folder.run}")
        registered = register_run(prepared, registry, progress)
        version, adapter = registered.version, registered.adapter
        if version.digest != announced:
            log.emit(
                "registered", model=version.model, version=version.number, digest=version.digest
            )
            if spec.registration.alias is not None:
                point_alias(registry, version, spec.registration.alias, reason=f"run {folder.run}")
        folder.card.write_text(card(version), encoding="utf-8")
        write_json(
            folder.result,
            {
                "run": folder.run,
                "model": version.model,
                "version": version.number,
                "digest": version.digest,
                "metrics": version.manifest.metrics,
                "adapter": None if adapter is None else adapter.digest,
            },
        )
        for leftover in (folder.checkpoints, folder.ray):
            shutil.rmtree(leftover, ignore_errors=True)
        if mirror is not None:
            _remove_copies(mirror)
    return RunResult(folder, version, reused=trained, adapter=adapter)


def _remove_copies(mirror: Mirror) -> None:
    try:
        mirror.remove()
    except OSError as problem:
        raise RunError(
            f"the version is registered, but copies of checkpoints are left behind: {problem}",
            hint="submit the run again: it returns its result and tries once more",
        ) from problem


def _announced(folder: RunFolder) -> str | None:
    """Return the digest that this run registered before: its alias is no longer ours to move."""
    if not folder.result.exists():
        return None
    digest: str = json.loads(folder.result.read_text(encoding="utf-8"))["digest"]
    return digest


def _train(
    prepared: Prepared,
    log: EventLog,
    progress: RunProgress,
    settings: Settings,
    *,
    in_process: bool,
) -> None:
    folder = prepared.folder
    task = WorkerTask(
        spec=prepared.spec,
        folder=folder.root,
        dataset=prepared.dataset,
        base=prepared.base,
        request=prepared.plan.request,
        num_threads=max(1, int(prepared.plan.request.cpus)),
        checkpoint_mirror=settings.checkpoint_mirror,
    )
    seen = sum(1 for _ in read_events(folder.events))
    try:
        with progress.following(folder.events, waiting_for="starting workers"):
            if in_process:
                import torch

                execute(task, device=torch.device("cpu"))
            else:
                while not _on_ray(task, settings, folder):
                    pass
    except BaseException as error:
        log.emit("failed", error=type(error).__name__, message=str(error))
        raise
    if folder.metrics.exists():
        return
    failures = [e for e in list(read_events(folder.events))[seen:] if e["event"] == "failed"]
    if failures:
        raise _as_told(failures[-1])
    raise RunError(f"the workers of run {folder.run} ended without a result")


def _as_told(failed: Mapping[str, Any]) -> KovarError:
    """Return the error of a worker; one about a field of the spec can be pointed at its line."""
    kind: type[KovarError] = getattr(errors, failed["error"], RunError)
    message, field = failed["message"], failed.get("field")
    if field is None:
        return kind(message)
    return kind(message.removeprefix(f"{field}: "), field=field)


def _on_ray(task: WorkerTask, settings: Settings, folder: RunFolder) -> bool:
    """Train on Ray; return whether that is the end, or other workers have to go on.

    Raises:
        RunError: the workers failed too often. Passes that were too large do not count: the
            workers start again with smaller ones, which ends with one row at the latest.
    """
    shrunk = _num_shrunk(folder)
    try:
        train_on_ray(task, settings)
    except RunError:
        if _num_shrunk(folder) == shrunk:
            raise
        return False
    return not _was_preempted(folder)


def _num_shrunk(folder: RunFolder) -> int:
    return sum(event["event"] == "shrunk" for event in read_events(folder.events))


def _was_preempted(folder: RunFolder) -> bool:
    """Say whether the last workers ended because a machine goes away."""
    told = [e["event"] for e in read_events(folder.events) if e["rank"] == 0]
    return not folder.metrics.exists() and told[-1:] == ["preempted"]
