"""The winner of a sweep: from a trial's weights to a registered version, and to an alias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kovar.errors import NotFoundError, RunError
from kovar.training.attempt import Attempt
from kovar.training.folder import RunFolder
from kovar.training.plan import unplanned_run
from kovar.training.preparation import Prepared
from kovar.training.registration import Registered, SweepFacts, register_run
from kovar.training.task import WorkerTask
from kovar.training.trial import TrialEnd, fill_weights

if TYPE_CHECKING:
    import torch
    from pydantic import JsonValue

    from kovar.registry import AliasMove, Registry, Version
    from kovar.training.progress import RunProgress
    from kovar.tuning.record import TrialRecord

MAX_RIVALS: Final = 50
"""In the card; the sweep's results hold all of them."""


@dataclass(frozen=True)
class Winner:
    """The trial that becomes a version.

    Args:
        task: the trial.
        end: how it ended: finished, with its weights.
        sweep: id of the sweep.
        rivals: all other trials, the best first.
    """

    task: WorkerTask
    end: TrialEnd
    sweep: str
    rivals: Sequence[TrialRecord] = ()


def register_winner(winner: Winner, registry: Registry, progress: RunProgress) -> Registered:
    """Make the winner's files and register them, with the sweep as lineage.

    Where this process is connected to Ray, the files are made on hardware like the trial's. What
    was registered before is returned, so an interrupted call may be repeated.

    Raises:
        DamagedArtifactError: the weights are not those that the trial left.
        RunError: the trial has left no weights.
    """
    make_version_on_ray(winner)
    task, folder = winner.task, RunFolder(winner.task.folder)
    rivals: list[JsonValue] = [_rival(one) for one in winner.rivals[:MAX_RIVALS]]
    prepared = Prepared(task.spec, task.base, task.dataset, unplanned_run(task.spec), folder)
    return register_run(
        prepared, registry, progress, sweep=SweepFacts(sweep=winner.sweep, rivals=rivals)
    )


def make_version_on_ray(winner: Winner) -> None:
    """Make the winner's files, on a node of Ray's if this process is connected to any."""
    import ray

    if not ray.is_initialized():
        make_version(winner.task, winner.end)
        return
    from kovar.resources.ray import actor_options

    options = actor_options(winner.task.request, field="resources.worker")
    ray.get(ray.remote(**options)(make_version).remote(winner.task, winner.end))


def make_version(task: WorkerTask, end: TrialEnd) -> None:
    """Write the trial's `model` folder and `metrics.json`, as a run of the same spec does.

    Raises:
        DamagedArtifactError: the weights are not those that the trial left.
        RunError: the trial has left no weights.
    """
    import torch

    from kovar.training.device import rank_device
    from kovar.training.version_folder import Trained, write_version_folder

    torch.set_num_threads(task.num_threads)
    device = rank_device(lambda: torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    paths = RunFolder(task.folder)
    trained = Trained(
        model=_trained_model(task, end),
        device=device,
        precision=end.precision or "fp32",
        num_workers=task.spec.resources.num_workers.max,
        num_steps=end.usage.num_steps,
        weights_step=end.step,
        chip=end.chip or "unknown",
    )
    attempt = Attempt.claim(paths.attempts)
    write_version_folder(task, paths, attempt, trained, _unheard)


def _unheard(event: str, **fields: Any) -> None:
    """Report nothing: the trial has told its own end."""


def _trained_model(task: WorkerTask, end: TrialEnd) -> Any:
    """Build the model of the trial's spec, with the trial's weights in it."""
    from kovar.training.halves import keep_in_bf16
    from kovar.training.worker import untrained_model

    path = None if end.weights is None else task.folder / end.weights
    if path is None or end.weights_digest is None or not path.is_file():
        raise RunError(
            f"trial {task.folder.name} has left no weights",
            hint="run the sweep again with --fresh",
        )
    model: torch.nn.Module = untrained_model(task)
    if task.spec.training.weights == "bf16" and end.precision in ("bf16", "fp8"):
        keep_in_bf16(model)
    fill_weights(model, path, digest=end.weights_digest)
    return model


def _rival(record: TrialRecord) -> dict[str, JsonValue]:
    metrics: Mapping[str, float] = record.metrics
    return {
        "trial": record.number,
        "status": record.status,
        **record.point,
        **{name: round(value, 6) for name, value in metrics.items()},
    }


def promote_winner(
    registry: Registry, version: Version, alias: str, *, sweep: str
) -> AliasMove | None:
    """Point an alias at the winner, through the alias's gates.

    Returns:
        The move; None where the alias points at the version already.

    Raises:
        ConflictError: somebody moved it in between.
        GateError: a gate refuses; the message names it, with its numbers.
    """
    try:
        current = registry.version(version.model, alias).digest
    except NotFoundError:
        current = None
    if current == version.digest:
        return None
    return registry.promote(
        version.model, alias, to=version.digest, expected=current, reason=f"winner of sweep {sweep}"
    )
