"""Tells the event log when workers wait for hardware and when they have it; prepares them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kovar.events import EventLog
from kovar.training.folder import RunFolder
from kovar.training.notice import install_terminations

if TYPE_CHECKING:
    from ray.train.v2.api.callback import RayTrainCallback


def placement_events(folder: RunFolder) -> RayTrainCallback:
    """Return a callback of Ray Train's controller that emits `placing` and `placed`.

    Ray Train's public callbacks begin with the first report, long after the wait. The class below
    is of those that it takes "on top of internal callbacks" (ray/train/v2/api).
    """
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class PlacementEvents(WorkerGroupCallback):  # type: ignore[misc]
        def before_worker_group_start(self, worker_group_context: Any) -> None:
            with EventLog(folder.events, run=folder.run) as log:
                log.emit("placing", num_workers=worker_group_context.num_workers)

        def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
            nodes = sorted({worker.metadata.hostname for worker in workers})
            with EventLog(folder.events, run=folder.run) as log:
                log.emit("placed", num_workers=len(workers), nodes=nodes)
            # A worker that hangs does not leave its process group, however long it is waited for.
            os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "5")
            # Before training starts in another thread: signals belong to the main thread.
            for worker in workers:
                worker.execute_async(install_terminations)
            return {}

    return PlacementEvents()
