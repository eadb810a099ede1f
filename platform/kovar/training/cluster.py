"""Ray for a run: connect or start, describe the nodes, and run the workers on Ray Train."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING

from kovar.errors import RunError
from kovar.resources import live_cluster, scaling_config_kwargs
from kovar.training.folder import RunFolder
from kovar.training.placing import placement_events
from kovar.training.task import WorkerTask
from kovar.training.worker import train_worker

if TYPE_CHECKING:
    from kovar.resources import Cluster


def train_on_ray(task: WorkerTask) -> None:
    """Run the workers of a task through Ray Train; start Ray if this process has none.

    Raises:
        RunError: the workers failed more often than `max_failures` allows.
    """
    # The controller notices a dead worker at its next poll.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    start_ray()
    folder = RunFolder(task.folder)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(**scaling_config_kwargs(task.spec.resources)),
        run_config=RunConfig(
            # A name of its own keeps Ray Train from restoring its own snapshot: Kovar resumes
            # from the newest checkpoint that verifies.
            name=f"{folder.run}-{time.time_ns()}",
            storage_path=str(folder.ray),
            failure_config=FailureConfig(max_failures=task.spec.max_failures),
            callbacks=[placement_events(folder)],
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as failure:
        raise RunError(
            f"training failed (max_failures: {task.spec.max_failures}): {_cause(failure)}",
            hint=f"the event log has the story: {folder.events}",
        ) from failure


def start_ray() -> None:
    """Connect to the cluster that `RAY_ADDRESS` names (a submitted job's own), else start Ray here.

    A Ray that merely runs on this machine is not joined: the run was planned for this machine.
    """
    import ray

    if not ray.is_initialized():
        address = None if "RAY_ADDRESS" in os.environ else "local"
        ray.init(
            address=address,
            log_to_driver=False,
            include_dashboard=False if address else None,
            logging_level=logging.ERROR,
        )


def connected_cluster() -> Cluster | None:
    """Describe the cluster that this process belongs to; None for none."""
    ray = sys.modules.get("ray")
    if "RAY_ADDRESS" not in os.environ and not (ray and ray.is_initialized()):
        return None
    start_ray()
    return live_cluster()


def _cause(failure: Exception) -> str:
    workers: dict[int, Exception] = getattr(failure, "worker_failures", {})
    if not workers:
        return str(failure).strip().splitlines()[-1]
    rank, error = min(workers.items())
    return f"rank {rank}: {str(error).strip().splitlines()[-1]}"
