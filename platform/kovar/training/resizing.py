"""Another number of workers for an elastic run, without a step that is taken twice.

Ray Train ends the workers of a running group to start more or fewer of them. This callback runs in
its controller, and has them save first, as they do when a machine goes away.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from kovar.training.notice import tell_to_end

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.worker_group import WorkerGroup

_POLL_S: Final = 0.1


class ResizingCallback(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
    """Lets workers save before others take their place.

    Args:
        limit_s: seconds after which workers that have not ended are replaced all the same.
    """

    def __init__(self, *, limit_s: float) -> None:
        self._limit_s = limit_s

    def after_controller_start(self, train_run_context: Any) -> None:
        """Begin without workers."""
        self._workers: WorkerGroup | None = None

    def after_worker_group_training_start(self, worker_group: WorkerGroup) -> None:
        """Remember who trains."""
        self._workers = worker_group

    def before_worker_group_shutdown(self, worker_group: WorkerGroup) -> None:
        """Forget them."""
        self._workers = None

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Have the workers save and end, if there are any and they live.

        Ray Train restarts failed workers by the same decision.
        """
        workers, self._workers = self._workers, None
        if workers is None:
            return
        seen = workers.get_latest_poll_status()
        if seen is None or seen.errors or seen.finished:
            return
        was, number = len(workers.get_workers()), resize_decision.num_workers
        for worker in workers.get_workers():
            worker.execute_async(tell_to_end, f"{number} instead of {was} workers go on")
        ends = time.monotonic() + self._limit_s
        while not (seen.errors or seen.finished) and time.monotonic() < ends:
            time.sleep(_POLL_S)
            seen = workers.poll_status(timeout=_POLL_S)
