"""What a sweep knows of its trials: a pure fold over the ledger's lines.

The driver applies every line that it writes, so what it knows is at each moment what another driver
would read from the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kovar.errors import RunError
from kovar.tuning.ledger import Entry
from kovar.tuning.points import Point
from kovar.tuning.record import Evaluation, Stay, TrialStatus


@dataclass(slots=True)
class TrialState:
    """One trial so far.

    Args:
        number: counts from 1.
        configuration: counts from 1.
        seed: of training.
        point: dotted path → value; changes where the trial takes over another one's weights.
        status: how it ended; None while it has not.
        reason: why it did not finish.
        history: its evaluations, in order.
        stays: the attempts, the running one included.
        usages: what each stay used.
        is_running: whether an actor works on it.
        num_failures: crashes that count against `max_failures`.
        is_stopped: whether the scheduler has ended it.
        donor: trial and step that it goes on from; None for its own checkpoint.
        end: what the trial told at its end.
        facts: chip, precision and precision_reason, as the trial told them.
        num_steps_planned: optimizer steps to its end; 0 if it has not told.
        incidents: what happened to it, in words.
    """

    number: int
    configuration: int
    seed: int
    point: Point
    status: TrialStatus | None = None
    reason: str | None = None
    history: list[Evaluation] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    usages: list[dict[str, Any]] = field(default_factory=list)
    is_running: bool = False
    num_failures: int = 0
    is_stopped: bool = False
    donor: tuple[int, int] | None = None
    end: dict[str, Any] | None = None
    facts: dict[str, str] = field(default_factory=dict)
    num_steps_planned: int = 0
    incidents: list[str] = field(default_factory=list)

    @property
    def num_steps(self) -> int:
        """Optimizer steps done, as far as the trial has told."""
        told = [int(usage.get("num_steps") or 0) for usage in self.usages]
        return max([*told, *(evaluation.step for evaluation in self.history)], default=0)

    def used(self, name: str) -> float | None:
        """Return the sum of something over the stays; None where it is not known."""
        told = [usage[name] for usage in self.usages if usage.get(name) is not None]
        return sum(told) if told else None

    def seconds(self, now: float) -> float:
        """Return the seconds that the trial held its hardware."""
        return sum((stay.ended_at or now) - stay.started_at for stay in self.stays)

    def leave(self, at: float, outcome: str) -> None:
        """Close the stay that is running, if one is."""
        if self.is_running:
            self.stays[-1] = replace(self.stays[-1], ended_at=at, outcome=outcome)
            self.is_running = False

    def told(self, fields: dict[str, Any]) -> bool:
        """Take what the trial told; say whether it was an evaluation that was not known before."""
        self.is_stopped |= bool(fields.get("stop"))
        if (usage := fields.get("usage")) is not None and self.usages:
            self.usages[-1] = usage
        self.facts |= {
            k: fields[k] for k in ("chip", "precision", "precision_reason") if k in fields
        }
        self.num_steps_planned = fields.get("num_steps", self.num_steps_planned)
        if self.is_running:
            stay = self.stays[-1]
            self.stays[-1] = replace(
                stay,
                node=fields.get("node", stay.node),
                node_type=fields.get("node_type", stay.node_type),
                chip=fields.get("chip", stay.chip),
            )
        if text := fields.get("incident"):
            self.incidents.append(text)
        if "end" in fields:
            self._ended(fields["end"])
        return "metrics" in fields and self._evaluated(fields)

    def _ended(self, end: dict[str, Any]) -> None:
        self.end = end
        if not self.usages or end.get("usage") is None:
            return
        # A trial whose end the driver missed tells in a new stay what it used in the one before.
        is_late = not self.usages[-1] and len(self.usages) > 1
        self.usages[-2 if is_late else -1] = end["usage"]

    def _evaluated(self, fields: dict[str, Any]) -> bool:
        if self.history and fields["step"] <= self.history[-1].step:
            # After a restart the steps since the checkpoint are repeated.
            return False
        self.history.append(Evaluation(fields["step"], fields["seconds"], fields["metrics"]))
        return True


@dataclass(slots=True)
class SweepState:
    """All trials so far, and how long drivers have worked on them.

    Args:
        trials: by number.
        sessions: when each driver began, and when it was last known to live.
        closed: why the last driver ended; None if it did not say.
    """

    trials: dict[int, TrialState] = field(default_factory=dict)
    sessions: list[tuple[float, float]] = field(default_factory=list)
    closed: str | None = None

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> SweepState:
        """Fold a whole ledger."""
        state = cls()
        for entry in entries:
            state.apply(entry)
        return state

    @property
    def wall_seconds(self) -> float:
        """Seconds for which drivers worked on the sweep."""
        return sum(end - begin for begin, end in self.sessions)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do, as the last driver said."""
        return self.closed == "finished"

    def unended(self) -> Iterator[TrialState]:
        """Yield the trials that have not ended, in the order of their numbers."""
        return (trial for _, trial in sorted(self.trials.items()) if trial.status is None)

    def apply(self, entry: Entry) -> bool:
        """Take one line; say whether it brought an evaluation that was not known before.

        Raises:
            RunError: the line speaks of a trial that was never proposed.
        """
        fields = entry.fields
        match entry.kind:
            case "opened":
                self._interrupt(self.sessions[-1][1] if self.sessions else entry.at)
                self.sessions.append((entry.at, entry.at))
                self.closed = None
                return False
            case "closed":
                self._interrupt(entry.at)
                self.closed = fields["reason"]
            case "proposed":
                number = fields["trial"]
                self.trials[number] = TrialState(
                    number, fields["configuration"], fields["seed"], fields["point"]
                )
        begin, _ = self.sessions[-1] if self.sessions else (entry.at, entry.at)
        self.sessions[-1:] = [(begin, entry.at)]
        return "trial" in fields and self._apply(self._trial(entry), entry)

    def _apply(self, trial: TrialState, entry: Entry) -> bool:
        fields = entry.fields
        match entry.kind:
            case "reported":
                return trial.told(fields)
            case "started":
                trial.leave(entry.at, "interrupted")
                trial.is_running = True
                trial.stays.append(Stay("", None, "", entry.at, 0.0, ""))
                trial.usages.append({})
            case "interrupted":
                trial.leave(entry.at, "lost" if fields["lost_node"] else "interrupted")
                trial.num_failures += not fields["lost_node"]
                trial.incidents.append(fields["reason"])
            case "exploited":
                trial.donor = (fields["donor"], fields["step"])
                trial.point = fields["point"]
                trial.incidents.append(
                    f"goes on from step {fields['step']} of trial {fields['donor']}"
                )
            case "excluded":
                trial.status, trial.reason = "excluded", fields["reason"]
            case "ended":
                trial.leave(entry.at, fields["status"])
                trial.status, trial.reason = fields["status"], fields["reason"]
            case "retried":
                if trial.status == "failed":
                    trial.num_failures = 0
                trial.status = trial.reason = trial.end = None
        return False

    def _interrupt(self, at: float) -> None:
        """The driver ended, and its trials with it."""
        for trial in self.trials.values():
            trial.leave(at, "interrupted")

    def _trial(self, entry: Entry) -> TrialState:
        try:
            return self.trials[entry.fields["trial"]]
        except KeyError:
            raise RunError(
                f"line {entry.number} of the sweep's ledger speaks of trial "
                f"{entry.fields['trial']}, which was never proposed"
            ) from None
