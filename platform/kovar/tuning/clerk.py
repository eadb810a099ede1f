"""Writes the ledger as Ray Tune runs the trials; this module imports Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ray import tune

from kovar.tuning.failure import reason_of
from kovar.tuning.scheduling import SweepScheduler, SweepTrial

if TYPE_CHECKING:
    from kovar.tuning.conductor import Conductor
    from kovar.tuning.feed import TrialFeed
    from kovar.tuning.population import Exploit

_CALLBACKS: Final = "RAY_TUNE_CALLBACKS"


@dataclass(frozen=True)
class Office:
    """What a clerk works with; see `kovar.tuning.loop.run_trials`."""

    conductor: Conductor
    feed: TrialFeed
    where: Callable[[str], Mapping[str, str | None]]
    scheduler: SweepScheduler
    take_over: Callable[[int, Exploit], bool]


_OFFICE: ContextVar[Office] = ContextVar("office")


@contextmanager
def employed(office: Office) -> Iterator[None]:
    """Make Ray Tune use a `Clerk` while the block runs.

    It is named by a variable: for callbacks that are passed, Ray's telemetry imports every
    integration that is installed, which takes seconds.
    """
    before = os.environ.get(_CALLBACKS)
    token = _OFFICE.set(office)
    os.environ[_CALLBACKS] = ",".join(filter(None, (before, f"{__name__}.{Clerk.__name__}")))
    try:
        yield
    finally:
        _OFFICE.reset(token)
        del os.environ[_CALLBACKS]
        if before is not None:
            os.environ[_CALLBACKS] = before


class Clerk(tune.Callback):  # type: ignore[misc]
    """Writes the ledger: what Ray Tune sees of its trials."""

    def __init__(self) -> None:
        office = _OFFICE.get()
        self._conductor, self._feed, self._where = office.conductor, office.feed, office.where
        self._scheduler, self._take_over = office.scheduler, office.take_over
        self._over: set[int] = set()

    def on_trial_start(
        self, iteration: int, trials: list[Any], trial: SweepTrial, **info: Any
    ) -> None:
        """Note that an actor has a trial."""
        self._conductor.write("started", trial=trial.number)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: SweepTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Note what a trial tells, and let it take over another one's weights."""
        told = json.loads(result["told"])
        if node_id := told.pop("node_id", None):
            trial.node_id = node_id
            told |= self._where(node_id)
        stop = bool(result["done"]) and "end" not in told
        self._conductor.write("reported", trial=trial.number, stop=stop, **told)
        exploit = self._scheduler.exploit_of(trial.number)
        if exploit is not None and self._take_over(trial.number, exploit):
            trial.set_config(self._feed.renewed(trial))

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: SweepTrial, **info: Any
    ) -> None:
        """Note how a trial ended: by itself, or by the scheduler."""
        known = self._conductor.state.trials[trial.number]
        if known.end is not None:
            end = known.end
            self._conductor.ended(trial.number, end["status"], end["reason"])
        else:
            self._conductor.ended(trial.number, "stopped")

    def on_trial_recover(
        self, iteration: int, trials: list[Any], trial: SweepTrial, **info: Any
    ) -> None:
        """Note why a trial starts again."""
        self._interrupted(trial)

    def on_trial_error(
        self, iteration: int, trials: list[Any], trial: SweepTrial, **info: Any
    ) -> None:
        """Note that Ray Tune gives a trial up, which may not be the trial's fault."""
        self._over.add(trial.number)
        # An actor that died between two trials is no failure of the one that was to follow.
        was_running = self._conductor.state.trials[trial.number].is_running
        if was_running:
            self._interrupted(trial)
        if was_running and not trial.should_recover():
            self._conductor.ended(trial.number, "failed", _reason(trial))
        else:
            self._conductor.lost(trial.number)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Find trials that Ray Tune has given up in silence: their actor could not be reset."""
        for trial in trials:
            if trial.status == SweepTrial.ERROR and trial.number not in self._over:
                self._over.add(trial.number)
                self._conductor.lost(trial.number)

    def _interrupted(self, trial: SweepTrial) -> None:
        self._conductor.write(
            "interrupted",
            trial=trial.number,
            reason=_reason(trial),
            lost_node=trial.is_lost_node,
        )


def _reason(trial: SweepTrial) -> str:
    return "its node was lost" if trial.is_lost_node else reason_of(trial.problem)
