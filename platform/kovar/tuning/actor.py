"""What an actor does with one trial: run it, and tell its news as the ledger writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from kovar.training.task import WorkerTask
from kovar.tuning.trial import TrialEnd, TrialUpdate, following, run_trial

if TYPE_CHECKING:
    import torch

    from kovar.settings import Settings
    from kovar.tuning.loop import Report


@dataclass(frozen=True)
class TrialPayload:
    """What an actor is given.

    Args:
        task: the trial.
        settings: how long workers may wait, where a trial has several.
    """

    task: WorkerTask
    settings: Settings


def run_in_actor(payload: TrialPayload, report: Report) -> Mapping[str, Any]:
    """Run a trial; what it does not catch is counted as a crash of the trial."""
    task = payload.task

    def tell(update: TrialUpdate) -> None:
        report(told_of(update))

    if task.spec.resources.num_workers.max == 1:
        return run_trial(task, report=tell, device=_device).to_json()
    from kovar.training.cluster import train_on_ray

    with following(task, tell):
        train_on_ray(task, payload.settings)
    end = TrialEnd.read(task.folder)
    if end is None:
        end = TrialEnd("failed", reason="its workers ended without a result")
    return end.to_json()


def told_of(update: TrialUpdate) -> dict[str, Any]:
    """Return news as plain JSON; scores that are not finite are no scores."""
    told: dict[str, Any] = {"usage": update.usage.to_json(), **update.facts}
    if update.text is not None:
        told["incident"] = update.text
    if (evaluation := update.evaluation) is not None:
        metrics = {name: value for name, value in evaluation.metrics.items() if isfinite(value)}
        told |= {"step": evaluation.step, "seconds": evaluation.seconds, "metrics": metrics}
    return told


def _device() -> torch.device:
    import ray
    import torch

    return torch.device("cuda" if ray.get_gpu_ids() else "cpu")
