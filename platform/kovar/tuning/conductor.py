"""What runs next, and what became of it: the sweep's decisions, without Ray.

Whatever happens is written to the ledger first and then known, so another conductor of the same
ledger goes on where this one was killed: it asks the search nothing twice, starts no trial that has
ended, and takes up those that had begun.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from kovar.errors import UserError
from kovar.tuning.points import Point
from kovar.tuning.spending import Allowance, price_over_stays, spending
from kovar.tuning.state import SweepState, TrialState
from kovar.tuning.venue import Venue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kovar.tuning.ledger import Entry, EntryKind, Ledger
    from kovar.tuning.points import TrialSpec
    from kovar.tuning.record import TrialStatus
    from kovar.tuning.search import Search

MAX_HELD: Final = 32
"""Trials proposed ahead while others of their hardware run, to find one for idle hardware."""

ALIVE_EVERY_S: Final = 5.0
LOOK_EVERY_S: Final = 0.5


class Conductor:
    """Takes a sweep from its ledger to its end.

    Args:
        search: asked for configurations.
        trials_of: the trials of a configuration, one for each seed.
        ledger: of the sweep; what it holds is taken over.
        venue: where trials may run.
        allowance: what the sweep may spend.
        listen: hears of each line that this conductor writes, once it is known.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        search: Search,
        *,
        trials_of: Callable[[int, Point], Iterable[TrialSpec]],
        ledger: Ledger,
        venue: Venue,
        allowance: Allowance | None = None,
        listen: Callable[[Entry, SweepState], None] = lambda entry, state: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.state = SweepState()
        self.specs: dict[int, TrialSpec] = {}
        self._search, self._trials_of = search, trials_of
        self._ledger, self._venue = ledger, venue
        self._allowance = allowance or Allowance()
        self._listen, self._clock = listen, clock
        self._running: Counter[str] = Counter()
        self._held: deque[TrialSpec] = deque()
        self._members: dict[int, set[int]] = {}
        self._told: set[int] = set()
        self._is_exhausted = False
        self._stop_reason: str | None = None
        self._looked = 0.0
        for entry in ledger.entries:
            self._take(entry, is_replay=True)

    @property
    def now(self) -> float:
        """UNIX time."""
        return self._clock()

    def price_of(self, trial: TrialState) -> float | None:
        """Return the price per hour of what a trial holds; None where none is declared."""
        spec = self.specs[trial.number]
        return price_over_stays(trial, lambda kind: self._venue.price_of(spec, kind), self.now)

    @property
    def stop_reason(self) -> str | None:
        """Why everything is to end; None while it may go on."""
        return self._stop_reason

    @property
    def is_exhausted(self) -> bool:
        """Whether no more trials will be started."""
        return self._stop_reason is not None or (self._is_exhausted and not self._held)

    def stop(self, reason: str) -> None:
        """End everything: trials that have not ended stay unfinished."""
        self._stop_reason = self._stop_reason or reason

    def open(self, *, retries: bool = False) -> None:
        """Take up what was left: trials that had begun, and those that are to be tried again.

        Args:
            retries: whether trials that failed get another go.
        """
        again = {"unfinished", "failed"} if retries else {"unfinished"}
        left = [
            t.number for t in self.state.trials.values() if t.status is None or t.status in again
        ]
        self.write("opened")
        for spec in list(self.specs.values()):
            if spec.number not in self.state.trials:  # killed between the seeds of a configuration
                of = self.state.trials[min(self._members[spec.configuration])]
                self._write_proposed(spec, spec.configuration, of.point)
                left.append(spec.number)
        for number in left:
            if self.state.trials[number].status is not None:
                self.write("retried", trial=number)
        for number in left:
            self._finish_or_hold(self.state.trials[number])

    def next(self) -> TrialSpec | None:
        """Return a trial to start now; None if there is none at this moment."""
        while not self.is_exhausted:
            for trial in self._held:
                if self._venue.room.admits(self._venue.group_of(trial), self._running):
                    self._held.remove(trial)
                    self._running[self._venue.group_of(trial)] += 1
                    return trial
            if not self._may_propose():
                return None
            self._propose()
        return None

    def write(self, kind: EntryKind, **fields: Any) -> bool:
        """Write a line and know it; say whether it brought a new evaluation."""
        return self._take(self._ledger.append(kind, **fields), is_replay=False)

    def ended(self, number: int, status: TrialStatus, reason: str | None = None) -> None:
        """Note how a trial ended; its place is free for another one."""
        self.write("ended", trial=number, status=status, reason=reason)
        self._running[self._venue.group_of(self.specs[number])] -= 1

    def lost(self, number: int) -> None:
        """Give the place of a trial away that was lost without its fault; it is tried later."""
        self._running[self._venue.group_of(self.specs[number])] -= 1

    def look(self) -> None:
        """Look at the clock: note that the driver lives, and whether the budget is used up."""
        if abs(self.now - self._looked) < LOOK_EVERY_S:
            return
        self._looked = self.now
        last = self.state.sessions[-1][1]
        if self.now - last >= ALIVE_EVERY_S:
            self.write("alive")
        spent = spending(self.state, self.price_of, self.now)
        if reason := self._allowance.exceeded(spent):
            self.stop(reason)

    def close(self) -> None:
        """Write how the driver ended: what has not ended by now stays unfinished."""
        for trial in list(self.state.unended()) if self._stop_reason else []:
            self.write("ended", trial=trial.number, status="unfinished", reason=self._stop_reason)
        self.write("closed", reason=self._stop_reason or "finished")

    def _may_propose(self) -> bool:
        total = self._venue.room.total
        if total is not None and self._running.total() >= total:
            return False
        groups = self._venue.room.by_group
        is_open = groups is None or any(self._running[name] < n for name, n in groups.items())
        return is_open and not self._is_exhausted and len(self._held) < MAX_HELD

    def _propose(self) -> None:
        configuration = 1 + max(self._members, default=0)
        point = self._search.ask(configuration)
        if point is None:
            self._is_exhausted = True
            return
        try:
            trials = list(self._trials_of(configuration, point))
        except UserError as error:
            self.write(
                "refused", configuration=configuration, point=point, reason=why_invalid(error)
            )
            return
        for trial in trials:
            self._write_proposed(trial, configuration, point)
        for number in sorted(self._members[configuration]):
            self._hold(self.specs[number])

    def _write_proposed(self, trial: TrialSpec, configuration: int, point: Point) -> None:
        self.write(
            "proposed",
            trial=trial.number,
            configuration=configuration,
            seed=trial.seed,
            point=point,
        )

    def _hold(self, trial: TrialSpec) -> None:
        refusal = self._venue.refusal(trial)
        if refusal is None:
            self._held.append(trial)
        else:
            self.write("excluded", trial=trial.number, reason=refusal)

    def _take(self, entry: Entry, *, is_replay: bool) -> bool:
        is_news = self.state.apply(entry)
        if "trial" in entry.fields:
            self._heed(self.state.trials[entry.fields["trial"]], entry, is_news, is_replay)
        elif entry.kind == "refused":
            self._refuse(entry.fields, is_replay=is_replay)
        if not is_replay:
            self._listen(entry, self.state)
        return is_news

    def _refuse(self, fields: dict[str, Any], *, is_replay: bool) -> None:
        configuration = fields["configuration"]
        if is_replay:
            self._search.recall(configuration, fields["point"])
        self._members[configuration] = set()
        self._search.tell(configuration, None)

    def _heed(self, trial: TrialState, entry: Entry, is_news: bool, is_replay: bool) -> None:
        if entry.kind == "proposed":
            self._join(trial, is_replay=is_replay)
        elif entry.kind == "exploited":
            self.specs |= {
                spec.number: spec
                for spec in self._trials_of(trial.configuration, trial.point)
                if spec.number == trial.number
            }
        elif entry.kind == "reported" and is_news:
            last = trial.history[-1]
            self._search.report(trial.configuration, last.step, last.metrics)
        elif entry.kind in ("ended", "excluded"):
            self._tell(trial.configuration)

    def _join(self, trial: TrialState, *, is_replay: bool) -> None:
        if trial.configuration not in self._members:
            if is_replay:
                self._search.recall(trial.configuration, trial.point)
            specs = {s.number: s for s in self._trials_of(trial.configuration, trial.point)}
            self._members[trial.configuration] = set(specs)
            self.specs |= specs

    def _tell(self, configuration: int) -> None:
        """Tell the search of a configuration whose last seed has ended."""
        members = sorted(self._members[configuration])
        trials = [self.state.trials[n] for n in members if n in self.state.trials]
        if configuration in self._told or len(trials) < len(members):
            return
        if any(trial.status in (None, "unfinished") for trial in trials):
            return
        self._told.add(configuration)
        scores = [found for trial in trials if (found := self._scores(trial)) is not None]
        if not scores:
            self._search.tell(configuration, None)
            return
        names = set.intersection(*(set(found) for found in scores))
        means = {name: fmean(found[name] for found in scores) for name in sorted(names)}
        stopped = any(trial.status == "stopped" for trial in trials)
        self._search.tell(configuration, means, stopped=stopped)

    def _scores(self, trial: TrialState) -> dict[str, float] | None:
        if trial.status == "finished" and trial.end is not None:
            metrics = trial.end["metrics"]
        elif trial.status == "stopped" and trial.history:
            metrics = trial.history[-1].metrics
        else:
            return None
        seconds, price = trial.seconds(self.now), self.price_of(trial)
        scores = {name: float(v) for name, v in metrics.items() if isinstance(v, int | float)}
        scores["wall_seconds"] = seconds
        if price is not None:
            scores["cost"] = price * seconds / 3600
        return scores

    def _finish_or_hold(self, trial: TrialState) -> None:
        if trial.is_stopped:
            self.write("ended", trial=trial.number, status="stopped", reason=None)
        elif trial.end is not None:
            end = trial.end
            self.write("ended", trial=trial.number, status=end["status"], reason=end["reason"])
        elif trial.num_failures > self.specs[trial.number].max_failures:
            # The driver was killed before it could give the trial up.
            reason = trial.incidents[-1]
            self.write("ended", trial=trial.number, status="failed", reason=reason)
        else:
            self._hold(self.specs[trial.number])


def why_invalid(error: UserError) -> str:
    """Return a mistake of a drawn point in one line."""
    return f"{error.field}: {error.message}" if error.field else error.message
