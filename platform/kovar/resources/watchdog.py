"""Watches the placement groups of a Ray job, and gives them up when waiting is in vain."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from kovar.errors import KovarError, PlacementError, RunError, UndecidedError
from kovar.resources.cluster import Cluster
from kovar.resources.cluster_state import read_state
from kovar.resources.demand import Demand
from kovar.resources.live_cluster import describe, find_monitor
from kovar.resources.pending import Gang, GiveUp, Sight, Wait, WaitLimits, judge, sight_of
from kovar.resources.plan import plan_placement

POLL_S: Final = 1.0
TELL_AFTER_S: Final = 5.0
TELL_EVERY_S: Final = 60.0
_log = logging.getLogger(__name__)

Tell = Callable[[float, str], None]
"""Is told for how many seconds work has waited, and for what."""


class Watchdog:
    """A thread beside work that Ray is to place.

    It starts on entering the `with` block. Giving up removes the placement groups that wait, which
    wakes whoever waits for them, after `given_up` holds the error.

    Args:
        demands: what is wanted; several if the work consists of unlike parts, any of which can
            start alone.
        limits: how long it may wait.
        tell: hears of a wait that is long, and whenever its reason changes.
        is_waiting: given the placement groups that wait and the number of those that are held,
            whether the work as a whole waits.
    """

    def __init__(
        self,
        demands: Sequence[Demand],
        *,
        limits: WaitLimits,
        tell: Tell,
        is_waiting: Callable[[Sequence[Gang], int], bool] = lambda gangs, _: bool(gangs),
    ) -> None:
        self.given_up: RunError | None = None
        self._demands = demands
        self._limits = limits
        self._tell = tell
        self._is_waiting = is_waiting
        self._told: tuple[float, str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to watch; Ray must be initialized in this process."""
        import ray

        context = ray.get_runtime_context()
        self._address, self._job = context.gcs_address, context.get_job_id()
        self._monitor = find_monitor(self._address)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        wait: Wait | None = None
        while not self._stop.wait(POLL_S):
            try:
                gangs, num_held = self._gangs()
                sight = self._sight(gangs) if self._is_waiting(gangs, num_held) else None
            # The head does not answer, or not as expected: Ray's own clients will say so. The bound
            # on the wait must outlast it.
            except Exception as error:
                _log.warning("cannot see why work waits: %s", error)
                continue
            now_s = time.monotonic()
            judged = judge(wait, sight, now_s=now_s, limits=self._limits)
            if isinstance(judged, GiveUp):
                self.given_up = RunError(judged.reason, hint=judged.hint)
                self._remove(gangs)
                return
            wait = judged
            if wait is not None and sight is not None:
                self._report(now_s - wait.since_s, sight.status)

    def _report(self, waited_s: float, status: str) -> None:
        if waited_s < TELL_AFTER_S:
            return
        told_s, told = self._told or (0.0, "")
        if status != told or waited_s - told_s >= TELL_EVERY_S:
            self._told = (waited_s, status)
            self._tell(waited_s, status)

    def _gangs(self) -> tuple[list[Gang], int]:
        """Return the job's placement groups that wait, and count those that it holds."""
        from ray.util import placement_group_table

        table: dict[str, Any] = placement_group_table()
        # The id of a placement group ends with that of the job that made it.
        own = {pg: facts for pg, facts in table.items() if pg.endswith(self._job)}
        waiting = [
            Gang(
                pg,
                tuple(facts["bundles"][index] for index in sorted(facts["bundles"])),
                infeasible=facts["stats"]["scheduling_state"] == "INFEASIBLE",
            )
            for pg, facts in own.items()
            if facts["state"] in ("PENDING", "RESCHEDULING")
        ]
        return waiting, sum(facts["state"] == "CREATED" for facts in own.values())

    def _sight(self, gangs: Sequence[Gang]) -> Sight:
        state = read_state(self._address)
        cluster = describe(state, self._monitor)
        demand = " or ".join(dict.fromkeys(map(_shown, self._demands)))
        return sight_of(
            gangs, state, demand=demand, refusal=self._refusal(cluster), busy=cluster.busy
        )

    def _refusal(self, cluster: Cluster) -> str | None:
        """Say why the plan finds no place for any part of the work, however long it waits."""
        if cluster.can_grow:
            return None
        refusal = None
        for demand in self._demands:
            try:
                plan_placement([demand], cluster)
            except UndecidedError:  # no proof that waiting is in vain
                return None
            except PlacementError as error:
                refusal = refusal or _in_one_line(error)
            else:
                return None
        return refusal

    def _remove(self, gangs: Sequence[Gang]) -> None:
        from ray import PlacementGroupID
        from ray.util import remove_placement_group
        from ray.util.placement_group import PlacementGroup

        for gang in gangs:
            with suppress(Exception):  # it may be gone, and the others must go
                remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(gang.id))))


def _in_one_line(error: KovarError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _shown(demand: Demand) -> str:
    return f"{demand.num_min} × {demand.request.kind} worker"
