"""What counts as better: the metric of a sweep, its direction, and which evaluation counts."""

from __future__ import annotations

from collections.abc import Collection

from kovar.config import Document
from kovar.errors import did_you_mean
from kovar.training import FineTuneSpec
from kovar.training.tasks import TASKS, Direction, TaskName
from kovar.tuning.spec import EXPENSES, SweepSpec


def with_goal(
    document: Document, spec: SweepSpec, base: FineTuneSpec, tasks: Collection[TaskName]
) -> SweepSpec:
    """Decide what `auto` leaves open.

    Args:
        document: the sweep's file, for messages.
        spec: the sweep as written.
        base: the base with the overrides.
        tasks: of the trials.

    Raises:
        SpecError: a metric that a task does not have, or a direction that is not the metric's.
    """
    for number, name in enumerate(spec.objectives):
        if name not in EXPENSES:
            _check_metric(document, ("objectives", number), name, tasks, EXPENSES)
    metric = _metric(spec, base)
    _check_metric(document, ("metric",), metric, tasks)
    mode = TASKS[base.task].metrics[metric]
    if spec.mode not in ("auto", mode):
        better = {"max": "larger", "min": "smaller"}[mode]
        raise document.error_at(
            "mode", f"{metric} is better when it is {better}", got=spec.mode, allowed=mode
        )
    if spec.select == "last" and base.training.early_stopping is not None:
        raise document.error_at(
            "select",
            "early_stopping of the base keeps the best step, not the last one",
            got="last",
            allowed="best, auto",
            hint='add "training.early_stopping: null" to the overrides',
        )
    keeps_best = spec.select == "best" or (spec.select == "auto" and base.training.keeps_best)
    select = "best" if keeps_best else "last"
    return spec.model_copy(update={"metric": metric, "mode": mode, "select": select})


def directions_of(spec: SweepSpec, task: TaskName) -> dict[str, Direction]:
    """Return the scores that a searcher learns from, and whether more or less is better."""
    expenses: dict[str, Direction] = dict.fromkeys(EXPENSES, "min")
    known = {**TASKS[task].metrics, **expenses}
    return {name: known[name] for name in spec.objectives or (spec.metric,)}


def _metric(spec: SweepSpec, base: FineTuneSpec) -> str:
    if spec.metric != "auto":
        return spec.metric
    named = [name for name in spec.objectives if name not in EXPENSES]
    return named[0] if named else base.training.metric or TASKS[base.task].metric


def _check_metric(
    document: Document,
    at: tuple[str | int, ...],
    metric: str,
    tasks: Collection[TaskName],
    others: Collection[str] = (),
) -> None:
    for task in sorted(tasks):
        known = [*TASKS[task].metrics, *others]
        if metric not in known:
            raise document.error_at(
                at,
                f"a sweep cannot rank its trials by {metric}, which {task} does not have",
                got=metric,
                allowed=", ".join(known),
                hint=did_you_mean(metric, known),
            )
