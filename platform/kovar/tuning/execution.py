"""A prepared sweep, carried out: its conductor on Ray Tune, watched, shown and tidied up."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

from kovar.errors import CheckpointError, RunError
from kovar.resources import trial_resources
from kovar.resources.watchdog import Watchdog
from kovar.settings import Settings
from kovar.training.cluster import start_ray, wait_limits
from kovar.training.progress import RunProgress
from kovar.tuning.actor import TrialPayload, run_in_actor
from kovar.tuning.board_feed import BoardFeed
from kovar.tuning.conductor import Conductor
from kovar.tuning.exclusion import Excluded
from kovar.tuning.keeper import Keeper, score_to_beat
from kovar.tuning.ledger import Ledger, read_ledger
from kovar.tuning.live import LiveSweep
from kovar.tuning.nodes import NodeNames
from kovar.tuning.scheduler import Pbt
from kovar.tuning.search import explore
from kovar.tuning.spending import Allowance
from kovar.tuning.trial import adopt
from kovar.tuning.venue import Room, Venue

if TYPE_CHECKING:
    from kovar.training.task import WorkerTask
    from kovar.tuning.feed import Work
    from kovar.tuning.ledger import Entry
    from kovar.tuning.loop import TrialFunction
    from kovar.tuning.points import TrialSpec
    from kovar.tuning.population import Exploit
    from kovar.tuning.preparation import PreparedSweep
    from kovar.tuning.state import SweepState

MAX_SESSIONS: Final = 10
"""How often trials that Ray Tune lost are given to another Tuner."""

INTERRUPTED: Final = "interrupted"


@dataclass
class Execution:
    """One driver's work on a sweep.

    Args:
        prepared: the sweep.
        settings: how long trials may wait for nodes.
        progress: where to show what happens.
        function: runs one trial in an actor.
        retries: whether trials that failed get another go.
    """

    prepared: PreparedSweep
    settings: Settings
    progress: RunProgress
    function: TrialFunction = run_in_actor
    retries: bool = False

    def run(self) -> Conductor:
        """Run the trials to their ends, or to the sweep's.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; the sweep goes on when it is submitted again.
        """
        start_ray()
        sweep, folder = self.prepared.sweep, self.prepared.folder
        spec = sweep.spec
        allowance = Allowance(spec.budget.hours, spec.budget.cost)
        live = LiveSweep(spec, self.progress.console, sweep.num_trials, allowance)
        for session in range(1, MAX_SESSIONS + 1):
            with Ledger(folder.ledger) as ledger, live.showing():
                conductor = self._conductor(ledger, allowance, live)
                self._clear(conductor.state)
                conductor.open(retries=self.retries)
                with _interruptible(conductor):
                    given_up = self._run(conductor, live)
                if _settled(conductor, given_up, is_last=session == MAX_SESSIONS):
                    break
            self.retries = False
        shutil.rmtree(folder.ray, ignore_errors=True)
        if conductor.stop_reason == INTERRUPTED:
            raise KeyboardInterrupt
        return conductor

    def _conductor(self, ledger: Ledger, allowance: Allowance, live: LiveSweep) -> Conductor:
        sweep, plan = self.prepared.sweep, self.prepared.plan
        keeper = Keeper(self.prepared.folder, sweep.spec)
        board = BoardFeed(self.prepared.folder, sweep.spec)

        def listen(entry: Entry, state: SweepState) -> None:
            live.hear(entry, state)
            keeper.hear(entry, state)
            board.hear(entry, state)

        def refusal(trial: TrialSpec) -> str | None:
            found = plan.admit(trial)
            return found.reason if isinstance(found, Excluded) else None

        return Conductor(
            sweep.make_search(),
            trials_of=sweep.trials_of,
            ledger=ledger,
            venue=Venue(
                Room(sweep.spec.limit, plan.at_once),
                group=lambda trial: plan.group_of(trial).name,
                refusal=refusal,
                price=plan.price_of,
            ),
            allowance=allowance,
            listen=listen,
        )

    def _clear(self, state: SweepState) -> None:
        """Remove what the ledger does not know: its lines were lost with the power."""
        folder = self.prepared.folder
        known = {folder.trial(number) for number in state.trials}
        for path in folder.root.glob("trial-*"):
            if path not in known:
                shutil.rmtree(path, ignore_errors=True)

    def _run(self, conductor: Conductor, live: LiveSweep) -> RunError | None:
        from kovar.tuning.loop import run_trials
        from kovar.tuning.scheduling import SweepScheduler

        sweep, plan, folder = self.prepared.sweep, self.prepared.plan, self.prepared.folder
        spec = sweep.spec
        scheduler = SweepScheduler(
            spec.scheduler,
            conductor.state,
            metric=spec.metric,
            mode=spec.mode,
            seed=spec.seed,
            cell=sweep.space.cell_of,
        )
        scheduler.replay(read_ledger(folder.ledger))
        watchdog = self._watchdog()

        def is_over() -> bool:
            live.look(conductor.state, conductor.price_of, conductor.now)
            return watchdog.given_up is not None

        with watchdog:
            run_trials(
                conductor,
                self.function,
                work_of=lambda trial: self._work(trial, conductor.state),
                scheduler=scheduler,
                metric=spec.metric,
                folder=folder.ray / f"session-{len(conductor.state.sessions)}",
                is_over=is_over,
                reuse_actors=all(group.num_workers == 1 for group in plan.planned),
                where=NodeNames().where,
                take_over=lambda number, exploit: self._take_over(conductor, number, exploit),
            )
        return watchdog.given_up

    def _take_over(self, conductor: Conductor, number: int, exploit: Exploit) -> bool:
        """Copy a donor's newest checkpoint, and change the fields that may change."""
        folder, spec = self.prepared.folder, self.prepared.sweep.spec
        donor = conductor.state.trials[exploit.donor]
        step = donor.history[-1].step
        try:
            adopt(folder.trial(number), folder.trial(donor.number), step=step)
        except CheckpointError:  # the donor is on its way to a later one
            return False
        point = explore(spec, donor.point, draw=exploit.draw)
        conductor.write("exploited", trial=number, donor=donor.number, step=step, point=point)
        return True

    def _watchdog(self) -> Watchdog:
        demands = [
            replace(group.demand, num_min=1, num_max=1) for group in self.prepared.plan.planned
        ]
        return Watchdog(
            demands,
            limits=wait_limits(self.settings),
            tell=lambda waited_s, reason: self.progress.say(
                f"  waiting for {waited_s:.0f} s: {escape(reason)}"
            ),
            # While a trial runs, the others wait for it.
            is_waiting=lambda gangs, num_held: bool(gangs) and not num_held,
        )

    def task(self, trial: TrialSpec, *, weights_bar: float | None) -> WorkerTask:
        """Return what a trial's workers are given.

        Args:
            trial: one that can run.
            weights_bar: the score that its weights are kept from.

        Raises:
            UserError: its model, its data or its method is at fault.
        """
        prepared = self.prepared
        plan = prepared.plan.admit(trial)
        if isinstance(plan, Excluded):
            raise RunError(f"trial {trial.number} is excluded: {plan.reason}")
        folder = prepared.folder.trial(trial.number)
        task = prepared.inputs.task(trial.spec, folder=folder, plan=plan)
        saves = isinstance(prepared.sweep.spec.scheduler, Pbt)
        return replace(task, weights_bar=weights_bar, saves_updates=saves)

    def _work(self, trial: TrialSpec, state: SweepState) -> Work:
        from kovar.tuning.feed import Work

        task = self.task(trial, weights_bar=score_to_beat(state, self.prepared.sweep.spec))
        task.folder.mkdir(parents=True, exist_ok=True)
        resources = trial_resources(task.request, field="resources.worker")
        if trial.spec.resources.num_workers.max > 1:
            # Its workers have places of their own; a byte makes the group that Ray Tune wants.
            resources = {"bundles": [{"memory": 1}]}
        return Work(TrialPayload(task, self.settings), resources, trial.spec.max_failures)


def _settled(conductor: Conductor, given_up: RunError | None, *, is_last: bool) -> bool:
    """Close the sweep unless another Tuner gets the trials that this one lost; say whether."""
    is_left = conductor.stop_reason is None and any(conductor.state.unended())
    if is_left and is_last and given_up is None:
        given_up = RunError(f"trials were lost {MAX_SESSIONS} times over")
    if given_up is not None:
        _give_up(conductor, given_up)
    elif is_left:
        return False
    conductor.close()
    return True


def _give_up(conductor: Conductor, error: RunError) -> None:
    """Say of each trial that could not start why; the others may be tried another time."""
    for trial in list(conductor.state.unended()):
        conductor.write("ended", trial=trial.number, status="failed", reason=error.message)
    conductor.stop(error.message)


@contextmanager
def _interruptible(conductor: Conductor) -> Iterator[None]:
    """End the sweep in order at the first Ctrl-C, and at once at the second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        conductor.stop(INTERRUPTED)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
