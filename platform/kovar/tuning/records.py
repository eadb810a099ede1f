"""From what the ledger knows of a trial to the record that reports read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kovar.tuning.record import TrialRecord

if TYPE_CHECKING:
    from kovar.tuning.record import TrialStatus
    from kovar.tuning.spec import SweepSpec
    from kovar.tuning.spending import Price
    from kovar.tuning.state import SweepState, TrialState


def records_of(
    state: SweepState, spec: SweepSpec, *, price: Price, now: float
) -> tuple[TrialRecord, ...]:
    """Return the records of all trials, by their numbers; those that run count as unfinished.

    Args:
        state: of the sweep.
        spec: with its metric, mode and select resolved.
        price: per hour of what a trial holds.
        now: UNIX time, for the trials that run.
    """
    trials: Iterable[TrialState] = (trial for _, trial in sorted(state.trials.items()))
    return tuple(_record(trial, spec, price(trial), now) for trial in trials)


def _record(
    trial: TrialState, spec: SweepSpec, price_per_hour: float | None, now: float
) -> TrialRecord:
    end = trial.end or {}
    name = end.get("predictions")
    memory = [
        usage["peak_memory_bytes"] for usage in trial.usages if usage.get("peak_memory_bytes")
    ]
    return TrialRecord(
        number=trial.number,
        configuration=trial.configuration,
        seed=trial.seed,
        point=trial.point,
        status=trial.status or "unfinished",
        reason=trial.reason,
        metrics=_metrics(trial, spec),
        history=tuple(trial.history),
        precision=end.get("precision") or trial.facts.get("precision"),
        precision_reason=end.get("precision_reason") or trial.facts.get("precision_reason"),
        train_seconds=trial.used("train_seconds") or 0.0,
        wall_seconds=trial.seconds(now),
        num_steps=trial.num_steps,
        tokens=int(trial.used("tokens") or 0),
        peak_memory_bytes=max(memory, default=None),
        energy_joules=trial.used("energy_joules"),
        price_per_hour=price_per_hour,
        stays=tuple(trial.stays),
        incidents=tuple(trial.incidents),
        predictions=f"trial-{trial.number:04d}/{name}" if name else None,
    )


_SCORED: frozenset[TrialStatus | None] = frozenset({"stopped", "unfinished", None})


def _metrics(trial: TrialState, spec: SweepSpec) -> dict[str, float]:
    """Return the scores that count; a trial that diverged or failed has none."""
    if trial.status == "finished" and trial.end is not None:
        return dict(trial.end["metrics"])
    known = [one for one in trial.history if spec.metric in one.metrics]
    if trial.status not in _SCORED or not known:
        return {}
    if spec.select == "last":
        return dict(known[-1].metrics)
    sign = 1 if spec.mode == "max" else -1
    return dict(max(known, key=lambda one: sign * one.metrics[spec.metric]).metrics)
