"""The trials of a conductor, carried out by Ray Tune in reused actors; this module imports Ray.

Ray Tune places the trials, keeps their actors and starts them again after crashes. What it writes
is never read: the ledger alone says what happened.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ray import tune

from kovar.tuning.clerk import Office, employed
from kovar.tuning.feed import TrialFeed, Work
from kovar.tuning.scheduling import SCORE, SweepScheduler

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
    with employed(Office(conductor, feed, where, scheduler, take_over)):
        # The newer Tuner would also write itself to a file, searcher and callbacks included.
        tune.run(
            _in_actor(function, metric),
            name=folder.name,
            storage_path=str(folder.parent),
            search_alg=feed,
            scheduler=scheduler,
            stop=_Ending(conductor, is_over),
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
