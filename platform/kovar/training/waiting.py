"""The wait of a Ray Train run for its nodes: told, and bounded.

Ray Train's controller waits for a placement group, and asks for it again each minute, for ever.
This callback runs in the controller, and ends it through the controller's own handling of errors,
so that Ray Train cleans up after itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RestartingState,
)

from kovar.events import EventLog
from kovar.resources.pending import Gang, WaitLimits
from kovar.resources.watchdog import Watchdog

if TYPE_CHECKING:
    from kovar.resources import Demand

# An elastic run asks for no placement group before enough nodes are there.
_BEFORE_PLACEMENT: Final = (InitializingState, ReschedulingState, RestartingState)


class WaitingCallback(ControllerCallback):  # type: ignore[misc]
    """Writes `waiting` events, and fails the run when its workers cannot start.

    Args:
        demand: the run's workers.
        limits: how long they may wait.
        events: the run's event log.
        run: its id.
    """

    def __init__(self, demand: Demand, *, limits: WaitLimits, events: Path, run: str) -> None:
        self._demand = demand
        self._limits = limits
        self._events = events
        self._run = run

    def after_controller_start(self, train_run_context: Any) -> None:
        """Begin to watch."""
        self._before_placement = True
        self._has_failed = False
        self._watchdog = Watchdog(
            [self._demand], limits=self._limits, tell=self._tell, is_waiting=self._is_waiting
        )
        self._watchdog.start()

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Remember whether workers are being started."""
        self._before_placement = isinstance(current_state, _BEFORE_PLACEMENT)
        self._fail_if_given_up()

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Replace the failed wait for a placement group, upon which Ray Train would try again."""
        self._fail_if_given_up()

    async def before_controller_shutdown(self) -> None:
        """End the thread."""
        self._watchdog.stop()

    def before_controller_abort(self) -> None:
        """End the thread."""
        self._watchdog.stop()

    def _is_waiting(self, gangs: Sequence[Gang], num_held: int) -> bool:
        return bool(gangs) or self._before_placement

    def _tell(self, waited_s: float, status: str) -> None:
        with EventLog(self._events, run=self._run) as log:
            log.emit("waiting", seconds=round(waited_s, 1), reason=status)

    def _fail_if_given_up(self) -> None:
        error = self._watchdog.given_up
        if error is not None and not self._has_failed:
            self._has_failed = True  # what Ray Train does about it must not fail again
            raise error
