"""The trials of a conductor, carried out by Ray Tune in reused actors; this module imports Ray.

Ray Tune places the trials, keeps their actors and starts them again after crashes. What it writes
is never read: the ledger alone says what happened.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ray import tune
from ray.tune.search import SearchAlgorithm

from kovar.tuning.failure import reason_of
from kovar.tuning.scheduling import SCORE, SweepScheduler, SweepTrial

if TYPE_CHECKING:
    from kovar.tuning.conductor import Conductor
    from kovar.tuning.points import TrialSpec
    from kovar.tuning.population import Exploit

Report = Callable[[Mapping[str, Any]], None]
"""Takes what a trial tells, as plain JSON; see kovar.tuning.ledger."""

TrialFunction = Callable[[Any, Report], Mapping[str, Any]]
"""Runs one trial in an actor, from its payload; returns its end: status, reason, metrics."""

ENVIRONMENT: Final = {
    # Kovar prints its own table; with this, Tune's verbosity of 0 really prints nothing.
    "RAY_AIR_NEW_OUTPUT": "0",
    # The ledger and Kovar's own TensorBoard files say what Tune's loggers would.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A trial that starts, or crashes, tells nothing of the metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Nothing is restored from Tune's own state.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # How many trials may wait for hardware: the conductor limits those that run.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    # Ctrl-C is the conductor's.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

_CLEANUP_S: Final = "60"
"""How long a trial that was stopped may take to close its files before its actor is reused."""


@dataclass(frozen=True)
class Work:
    """What Ray Tune needs to know of one trial.

    Args:
        payload: what its actor is given; anything that Ray can send.
        resources: arguments of `ray.tune.PlacementGroupFactory`.
        max_failures: crashes after which it starts again.
    """

    payload: Any
    resources: Mapping[str, Any]
    max_failures: int


def run_trials(
    conductor: Conductor,
    function: TrialFunction,
    *,
    work_of: Callable[[TrialSpec], Work],
    scheduler: SweepScheduler,
    metric: str,
    folder: Path,
    is_over: Callable[[], bool] = lambda: False,
    reuse_actors: bool = True,
    where: Callable[[str], Mapping[str, str | None]] = lambda node_id: {},
    take_over: Callable[[int, Exploit], bool] = lambda number, exploit: False,
) -> None:
    """Run what a conductor hands out, until nothing is left or it stops.

    Args:
        conductor: of the sweep.
        function: runs a trial in an actor.
        work_of: what a trial takes.
        scheduler: hears of every evaluation.
        metric: that the scheduler compares.
        folder: Ray Tune's own files; nothing in them is needed afterwards.
        is_over: asked a few times a second; whether everything is to end.
        reuse_actors: whether an actor runs one trial after the other: not where a trial has workers
            of its own, which a stopped trial would leave running.
        where: name and type of a node, from Ray's id of it.
        take_over: makes a trial go on from another one's checkpoint, with other fields; says
            whether it could.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # It misses what its own loggers would have written.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    feed = TrialFeed(conductor, work_of)
    # The newer Tuner would also write itself to a file, searcher and callbacks included.
    tune.run(
        _in_actor(function, metric),
        name=folder.name,
        storage_path=str(folder.parent),
        search_alg=feed,
        scheduler=scheduler,
        stop=_Ending(conductor, is_over),
        callbacks=[_Clerk(conductor, feed, where, scheduler, take_over)],
        num_samples=-1,
        reuse_actors=reuse_actors,
        raise_on_failed_trial=False,
        verbose=0,
    )


def _in_actor(function: TrialFunction, metric: str) -> Callable[[dict[str, Any]], None]:
    """Return what each actor runs."""

    def trial(config: dict[str, Any]) -> None:
        import ray

        os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = _CLEANUP_S
        # Ray Tune sends what is left of the configuration back with every report.
        payload = config.pop("payload").value
        first = {"node_id": ray.get_runtime_context().get_node_id()}

        def report(told: Mapping[str, Any], *, done: bool = False) -> None:
            text = json.dumps({**told, **first}, allow_nan=False)
            first.clear()
            result: dict[str, Any] = {"told": text, "done": done}
            if metric in (metrics := told.get("metrics", {})):
                result |= {SCORE: metrics[metric], "step": told["step"]}
            tune.report(result)

        report({"end": dict(function(payload, report))}, done=True)

    return trial


@dataclass(frozen=True)
class _Parcel:
    """A payload that Ray Tune passes on without copying it; nobody changes it."""

    value: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> _Parcel:
        return self


class TrialFeed(SearchAlgorithm):  # type: ignore[misc]
    """Hands the conductor's trials to Ray Tune.

    Args:
        conductor: of the sweep.
        work_of: what a trial takes.
    """

    def __init__(self, conductor: Conductor, work_of: Callable[[TrialSpec], Work]) -> None:
        self._conductor, self._work_of = conductor, work_of
        self._options: dict[str, Any] = {}

    def add_configurations(self, experiments: Any) -> None:
        """Take the one experiment, which names the function and the storage."""
        spec = experiments[0].spec
        self._options = {
            "trainable_name": spec["run"],
            "storage": spec["storage"],
            "checkpoint_config": spec["checkpoint_config"],
        }

    def next_trial(self) -> SweepTrial | None:
        """Return a trial that may start now, if there is one."""
        trial = self._conductor.next()
        if trial is None:
            return None
        work = self._work_of(trial)
        return SweepTrial(
            trial.number,
            config=self.config_of(work),
            placement_group_factory=tune.PlacementGroupFactory(**work.resources),
            max_failures=work.max_failures,
            trial_dirname_creator=str,
            **self._options,
        )

    def renewed(self, trial: SweepTrial) -> dict[str, Any]:
        """Return the configuration of a trial whose fields have changed."""
        return self.config_of(self._work_of(self._conductor.specs[trial.number]))

    @staticmethod
    def config_of(work: Work) -> dict[str, Any]:
        """Return what an actor is given."""
        return {"payload": _Parcel(work.payload)}

    def is_finished(self) -> bool:
        """Say whether no trial will follow."""
        return self._finished or self._conductor.is_exhausted


class _Ending(tune.Stopper):  # type: ignore[misc]
    """Ends the whole sweep, and never a single trial."""

    def __init__(self, conductor: Conductor, is_over: Callable[[], bool]) -> None:
        self._conductor, self._is_over = conductor, is_over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self._conductor.look()
        return self._is_over() or self._conductor.stop_reason is not None

    def __reduce__(self) -> Any:
        """Ray Tune writes a copy that nobody reads."""
        return tune.stopper.NoopStopper, ()


class _Clerk(tune.Callback):  # type: ignore[misc]
    """Writes the ledger: what Ray Tune sees of its trials."""

    def __init__(
        self,
        conductor: Conductor,
        feed: TrialFeed,
        where: Callable[[str], Mapping[str, str | None]],
        scheduler: SweepScheduler,
        take_over: Callable[[int, Exploit], bool],
    ) -> None:
        self._conductor, self._feed, self._where = conductor, feed, where
        self._scheduler, self._take_over = scheduler, take_over
        self._over: set[int] = set()

    def on_trial_start(
        self, iteration: int, trials: list[Any], trial: SweepTrial, **info: Any
    ) -> None:
        self._conductor.write("started", trial=trial.number)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: SweepTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
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
        known = self._conductor.state.trials[trial.number]
        if known.end is not None:
            end = known.end
            self._conductor.ended(trial.number, end["status"], end["reason"])
        else:
            self._conductor.ended(trial.number, "stopped")

    def on_trial_recover(
        self, iteration: int, trials: list[Any], trial: SweepTrial, **info: Any
    ) -> None:
        self._interrupted(trial)

    def on_trial_error(
        self, iteration: int, trials: list[Any], trial: SweepTrial, **info: Any
    ) -> None:
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
