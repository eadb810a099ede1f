"""What one Ray Train worker does: bind the engine to its rank, then make the version's files."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from kovar.errors import (
    KovarError,
    NonFiniteError,
    PreemptedError,
    SupersededError,
    UserError,
)
from kovar.events import EventLog, read_events
from kovar.training.attempt import Attempt
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.device import rank_device, rank_precision, rank_weights
from kovar.training.engine import Engine, Report
from kovar.training.flops import flops_per_token, peak_flops
from kovar.training.folder import RunFolder
from kovar.training.history.incident import incidents
from kovar.training.method import apply_method
from kovar.training.mirror import Mirror
from kovar.training.notice import TERMINATIONS, Hears, nothing
from kovar.training.padding import ResolvedPadding, resolve_padding
from kovar.training.parallel import Ddp, Parallel
from kovar.training.peak_memory import peak_memory_bytes, reset_peak_memory
from kovar.training.recovery import Numbers, Recovery
from kovar.training.shrinking import free_cached
from kovar.training.task import WorkerTask
from kovar.training.tasks import TASKS
from kovar.training.trackers.board import TensorBoard
from kovar.training.trackers.scalars import ScalarReader
from kovar.training.trial.end import TrialEnd
from kovar.training.trial.energy import open_energy
from kovar.training.trial.files import write_trial
from kovar.training.trial.usage import Meter
from kovar.training.version_folder import Trained, write_version_folder

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from kovar.events import EventKind
    from kovar.models import BuiltModel
    from kovar.precision import Device, ResolvedPrecision
    from kovar.training.spec import FineTuneSpec


def train_worker(config: dict[str, WorkerTask]) -> None:
    """Run one rank under Ray Train; `config["task"]` says what.

    A Kovar error is the same on every rank and on every retry, so it is written to the event log
    and ends the attempt normally: the driver raises it, and Ray Train does not retry in vain. A
    notice that a machine goes away ends it normally, too: the driver starts other workers without
    waiting for the machine's end. Any other exception counts against `max_failures`.
    """
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    with contextlib.suppress(PreemptedError):
        execute(
            config["task"],
            device=rank_device(ray.train.torch.get_device),
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            hears=_drained,
        )


def _drained() -> str | None:
    """Return why Ray takes a node of this worker group away.

    Ray Train's public `get_preemption_info` waits for all workers, which costs a step too much;
    what it sends round lies in every worker.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    info = get_train_context().preemption_context.preemption_info
    return None if info is None else f"Ray drains {', '.join(info.preempted_node_ids)}"


def execute(
    task: WorkerTask,
    *,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
    observe: Report | None = None,
    hears: Hears = nothing,
) -> None:
    """Train on this rank, then (rank 0) leave what the task's purpose asks for.

    For a version those are its folder and `metrics.json`, written last; for a trial its weights,
    its answers and `trial.json`, written last, however it ended. With one rank this runs in the
    calling process, without Ray.

    Args:
        task: what to do.
        device: where the model lives.
        rank: this process's rank.
        world_size: number of ranks; above 1 the default process group must exist.
        observe: receives rank 0's events beside the event log, with `usage` up to then.
        hears: says when this rank's machine goes away; SIGTERM says so, too.

    Raises:
        PreemptedError: a machine goes away; a checkpoint of the last step was saved.
        SupersededError: a later attempt took this one's place.
    """
    import torch

    from kovar.precision import detect_device

    torch.set_num_threads(task.num_threads)
    paths = RunFolder(task.folder)
    attempt = _next_attempt(paths, device, rank, world_size)
    meter = _meter(task, device, world_size)
    with (
        TERMINATIONS.listening() as terminated,
        EventLog(
            paths.events,
            run=paths.run,
            attempt=attempt.number,
            rank=rank,
            guard=attempt.check,
            durable=task.purpose == "version",
        ) as log,
    ):
        try:
            chip = detect_device("cuda" if device.type == "cuda" else "cpu")
            with _reporting(log, task, device, rank, meter, observe) as report:
                engine = _train(
                    task,
                    paths,
                    attempt,
                    report,
                    lambda: terminated() or hears(),
                    Parallel(rank, world_size, device),
                    chip,
                )
            if rank == 0:
                _finish(task, paths, attempt, engine, log, meter=meter, chip=chip.name)
        except (PreemptedError, SupersededError):
            raise
        except KovarError as error:
            at_fault = {"field": error.field} if isinstance(error, UserError) else {}
            log.emit("failed", error=type(error).__name__, message=str(error), **at_fault)
            if rank == 0 and task.purpose == "trial":
                _write_failure(paths, attempt, error, meter)
            if world_size > 1 and error.context.get("of_one_rank"):
                raise  # the others wait for this rank in vain


def _meter(task: WorkerTask, device: torch.device, world_size: int) -> Meter:
    if task.purpose != "trial":
        return Meter()
    reset_peak_memory(device)
    share = float(getattr(task.request, "count", 1.0))
    # Rank 0 cannot see what the chips of the others use.
    return Meter(open_energy(device.type, share=share) if world_size == 1 else None)


def _finish(
    task: WorkerTask,
    paths: RunFolder,
    attempt: Attempt,
    engine: Engine,
    log: EventLog,
    *,
    meter: Meter,
    chip: str,
) -> None:
    if task.purpose == "version":
        trained = Trained.by(engine, chip=chip)
        write_version_folder(task, paths, attempt, trained, log.emit)
        return
    write_trial(
        task,
        paths,
        attempt,
        engine,
        log,
        meter=meter,
        chip=chip,
        incidents=tuple(incidents(read_events(paths.events))),
        rebuild=partial(untrained_model, task),
    )
    if not task.saves_updates:  # then others may still go on from them
        shutil.rmtree(paths.checkpoints, ignore_errors=True)


def _write_failure(paths: RunFolder, attempt: Attempt, error: KovarError, meter: Meter) -> None:
    attempt.check()
    TrialEnd(
        status="diverged" if isinstance(error, NonFiniteError) else "failed",
        reason=str(error),
        step=meter.usage().num_steps,
        usage=meter.usage(),
        incidents=tuple(incidents(read_events(paths.events))),
    ).write(paths.root)


def _next_attempt(paths: RunFolder, device: torch.device, rank: int, world_size: int) -> Attempt:
    """Claim this start of the workers; rank 0 does it for all of them."""
    import torch
    import torch.distributed

    number = torch.zeros((), dtype=torch.int64, device=device)
    if rank == 0:
        number += Attempt.claim(paths.attempts).number
    if world_size > 1:
        torch.distributed.broadcast(number, src=0)
    return Attempt(paths.attempts, int(number))


def _train(
    task: WorkerTask,
    paths: RunFolder,
    attempt: Attempt,
    report: Report,
    hears: Hears,
    parallel: Parallel,
    chip: Device,
) -> Engine:
    """Train to the end, in safer numbers where those that the spec asks for do not suffice."""
    settings, resources = task.spec.training, task.spec.resources
    precision = rank_precision(task.spec.precision, chip, resources.worker)
    weights = rank_weights(settings.weights, precision, resources.worker)
    root = task.checkpoint_mirror
    checkpoints = CheckpointFolder(
        paths.checkpoints,
        keep=settings.keep_checkpoints,
        attempt=attempt,
        mirror=None if root is None else Mirror.open(root, paths.run),
        durable=task.purpose == "version",
    )
    recovery = Recovery(
        paths,
        checkpoints,
        parallel,
        chip=chip,
        begun_with=Numbers(precision, weights),
        guard=attempt.check,
    )
    has_started = False
    while True:
        engine = _build(task, recovery, report, hears, parallel)
        if not has_started:
            report("started", **_start_facts(engine, parallel, chip))
        has_started = True
        try:
            engine.train(checkpoints)
        except NonFiniteError as error:
            if task.purpose == "trial":
                raise  # that its numbers overflow is what the sweep wants to know of it
            broken = error.with_traceback(None)  # its frames would keep the model
        else:
            engine.unite(partial(untrained_model, task))
            return engine
        del engine  # two models may not fit into the memory
        free_cached(parallel.device.type)
        recovery.after(broken, report)


def _build(
    task: WorkerTask, recovery: Recovery, report: Report, hears: Hears, parallel: Parallel
) -> Engine:

    settings, kind = task.spec.training, TASKS[task.spec.task]
    built = _built(task)
    return Engine(
        apply_method(built, task.spec.method),
        task.dataset,
        task=kind,
        settings=settings,
        precision=recovery.numbers.precision,
        weights=recovery.numbers.weights,
        device=parallel.device,
        report=report,
        hears=hears,
        padding=_padding(task.spec, built.model, parallel, recovery.numbers.precision),
        rank=parallel.rank,
        world_size=parallel.world_size,
        parallelism=task.spec.parallelism,
        memory_bytes=task.request.memory,
        adjustments=recovery.adjustments,
        remember=recovery.remember,
        saves_updates=task.saves_updates,
    )


def _built(task: WorkerTask) -> BuiltModel:
    """Build the model with its head, the same on every rank."""
    import torch

    settings, kind = task.spec.training, TASKS[task.spec.task]
    torch.manual_seed(settings.seed)  # the new head's weights
    return kind.build_model(task.base, task.dataset, dropout=settings.dropout)


def untrained_model(task: WorkerTask) -> PreTrainedModel | PeftModel:
    """Build the whole model as it is before training, the same in every process."""
    return apply_method(_built(task), task.spec.method)


def _padding(
    spec: FineTuneSpec, model: PreTrainedModel, parallel: Parallel, precision: ResolvedPrecision
) -> ResolvedPadding:
    asked = spec.training.padding_free
    if asked == "auto" and (spec.training.compile or not isinstance(spec.parallelism, Ddp)):
        return ResolvedPadding(False, "models that are compiled or divided take padded rows")
    return resolve_padding(
        asked,
        model.config.to_dict(),
        device_type=parallel.device.type,
        precision=precision,
    )


def _start_facts(engine: Engine, parallel: Parallel, chip: Device) -> dict[str, Any]:
    precision = engine.precision
    return {
        "world_size": parallel.world_size,
        "num_steps": len(engine.steps),
        "epochs": engine.settings.epochs,
        "device": str(parallel.device),
        "precision": precision.precision,
        "reason": precision.reason,
        "padding": "none" if engine.padding.padding_free else "longest row",
        "padding_reason": engine.padding.reason,
        "metric": engine.judge.metric,
        "pid": os.getpid(),
        "chip": chip.name,
        "flops_per_token": flops_per_token(
            engine.model,
            output=engine.model.get_output_embeddings(),
            output_share=engine.task.predicted_share,
        ),
        "peak_flops": peak_flops(chip.name, precision.precision),
    }


@contextlib.contextmanager
def _reporting(
    log: EventLog,
    task: WorkerTask,
    device: torch.device,
    rank: int,
    meter: Meter,
    observe: Report | None,
) -> Iterator[Report]:
    """Yield a report that writes the event log and, on rank 0, a run's TensorBoard scalars."""
    if rank != 0:
        yield log.emit
        return

    def report(event: EventKind, **fields: Any) -> dict[str, Any]:
        if event == "step":
            fields["memory_bytes"] = peak_memory_bytes(device)
        meter.hear(event, fields)
        written = log.emit(event, **fields)
        if observe is not None:
            observe(event, usage=meter.usage(), **fields)
        return written

    if task.purpose == "trial":  # the sweep writes the scalars of all trials
        yield report
        return
    reader, board = ScalarReader(), TensorBoard(RunFolder(task.folder).tensorboard)

    def report_and_plot(event: EventKind, **fields: Any) -> None:
        if (point := reader.read(report(event, **fields))) is not None:
            board.log(point)

    succeeded = False
    try:
        yield report_and_plot
        succeeded = True
    finally:
        board.finish(succeeded=succeeded)
