"""Ray for a run: connect or start, describe the nodes, and run the workers on Ray Train."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from kovar.errors import RunError
from kovar.resources import Demand, live_cluster, scaling_config_kwargs
from kovar.resources.pending import WaitLimits
from kovar.settings import Settings, is_simulated
from kovar.training.folder import RunFolder
from kovar.training.placing import placement_events
from kovar.training.task import WorkerTask
from kovar.training.worker import train_worker

if TYPE_CHECKING:
    from kovar.resources import Cluster


def train_on_ray(task: WorkerTask, settings: Settings) -> None:
    """Run the workers of a task through Ray Train; start Ray if this process has none.

    Args:
        task: the run.
        settings: how long its workers may wait for nodes, and how long one may not answer.

    Raises:
        RunError: the workers failed more often than `max_failures` allows, or could not start.
    """
    # The controller notices a dead worker at its next poll.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # A node that goes away soon is worth a look each second.
    os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(settings.hang_timeout_s)
    if not task.spec.resources.num_workers.is_fixed:
        # Ray Train counts a node that was lost for up to 20 s, and asks for too many workers.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from kovar.training.resizing import ResizingCallback
    from kovar.training.waiting import WaitingCallback

    start_ray()
    folder = RunFolder(task.folder)
    waiting = WaitingCallback(
        replace(Demand.of(task.spec.resources, name=task.spec.name), request=task.request),
        limits=wait_limits(settings),
        events=folder.events,
        run=folder.run,
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"task": task},
        # Where CPUs stand in for GPUs, NCCL has none to join.
        torch_config=TorchConfig(backend="gloo") if is_simulated() else None,
        scaling_config=ScalingConfig(
            **scaling_config_kwargs(task.spec.resources, task.request),
            elastic_resize_monitor_interval_s=settings.resize_interval_s,
        ),
        run_config=RunConfig(
            # A name of its own keeps Ray Train from restoring its own snapshot: Kovar resumes
            # from the newest checkpoint that verifies.
            name=f"{folder.run}-{time.time_ns()}",
            storage_path=str(folder.ray),
            failure_config=FailureConfig(max_failures=task.spec.max_failures),
            callbacks=[
                waiting,
                placement_events(folder),
                ResizingCallback(limit_s=settings.hang_timeout_s),
            ],
        ),
    )
    given_up: RunError | None = None
    try:
        with _own_interrupts():
            trainer.fit()
    except TrainingFailedError as failure:
        given_up = _given_up(failure)
        if given_up is None:
            raise RunError(
                f"training failed (max_failures: {task.spec.max_failures}): {_cause(failure)}",
                hint=f"the event log has the story: {folder.events}",
            ) from failure
    # Raised here, it does not hold on to Ray Train's own error, whose frames keep the controller.
    if given_up is not None:
        raise given_up


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Take Ctrl-C back afterwards: Ray Train's handler keeps its controller, and aborts that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _given_up(failure: Exception) -> RunError | None:
    """Return the watchdog's decision, if it ended the run."""
    cause = getattr(failure, "controller_failure", None)
    return cause if isinstance(cause, RunError) else None


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


def wait_limits(settings: Settings) -> WaitLimits:
    """Return how long work may wait for nodes."""
    return WaitLimits(settings.infeasible_timeout_s, settings.placement_timeout_s)


def _cause(failure: Exception) -> str:
    workers: dict[int, Exception] = getattr(failure, "worker_failures", {})
    if not workers:
        return str(failure).strip().splitlines()[-1]
    rank, error = min(workers.items())
    return f"rank {rank}: {str(error).strip().splitlines()[-1]}"
