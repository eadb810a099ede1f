"""The ranked trials of a sweep, drawn for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kovar.tuning.record import TrialRecord, TrialStatus
from kovar.tuning.report.dimension import shown
from kovar.tuning.report.facts import short_names

if TYPE_CHECKING:
    from kovar.tuning.report.sweep_report import SweepReport

COLORS: Final[dict[TrialStatus, str]] = {
    "finished": "", "stopped": "dim", "diverged": "yellow", "failed": "red",
    "excluded": "dim", "unfinished": "yellow",
}  # fmt: skip
MAX_REASONS: Final = 20
_NAMES: Final = {"macro_f1": "macro F1", "micro_f1": "micro F1", "f1": "F1"}


def trial_table(report: SweepReport, *, max_rows: int = 40) -> Table:
    """Draw the trials, the best one on top, and below them why some have no result.

    Args:
        report: the sweep.
        max_rows: trials that are shown; a last line counts the others.
    """
    facts, names = report.facts, short_names(report.facts.paths)
    title = f"{facts.name}: {len(report.trials)} trials by {facts.metric}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 0, 0, 1), title_justify="left",
                  caption_justify="left")  # fmt: skip
    metrics = _metrics(report)
    shows_precision = "precision" not in facts.paths
    has_cost = any(trial.cost is not None for trial in report.trials)
    has_seeds = any(len(c.trials) > 1 for c in report.configurations)
    table.add_column("rank", justify="right")
    table.add_column("trial", justify="right")
    for path in facts.paths:
        table.add_column(names[path], justify="right", overflow="fold")
    extra = ["seed"] * has_seeds + [_NAMES.get(name, name) for name in metrics]
    extra += ["precision"] * shows_precision + ["seconds"] + ["cost"] * has_cost
    for column in extra:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    best = report.best
    for rank, trial in enumerate(report.ranked[:max_rows], start=1):
        cells = [str(trial.seed)] * has_seeds
        cells += [_score(trial, name) for name in metrics]
        cells += [trial.precision or "–"] * shows_precision
        cells += [f"{trial.wall_seconds:.1f}" if trial.wall_seconds else "–"]
        cells += [_cost(trial, facts.currency)] * has_cost
        table.add_row(
            str(rank) if trial.status == "finished" else "–",
            str(trial.number),
            *(Text(shown(trial.point.get(path))) for path in facts.paths),
            *cells,
            trial.status,
            style="bold green" if trial is best else COLORS[trial.status],
        )
    notes = _notes(report, max_rows)
    table.caption = Text("\n".join(notes)) if notes else None
    return table


def _notes(report: SweepReport, max_rows: int) -> list[str]:
    """Return what the rows do not say: how many are left out, and why some have no result."""
    left_out = len(report.trials) - max_rows
    notes = [f"… and {left_out} more in results.json"] if left_out > 0 else []
    without = [
        f"trial {t.number} {t.status}: {t.reason}"
        for t in sorted(report.trials, key=lambda t: t.number)
        if t.reason and t.status not in ("finished", "stopped")
    ]
    more = len(without) - MAX_REASONS
    return notes + without[:MAX_REASONS] + ([f"… and {more} more"] if more > 0 else [])


def _metrics(report: SweepReport) -> list[str]:
    """Return the metric that ranks, and another one that says what it does not."""
    known = {name for trial in report.trials for name in trial.metrics}
    wanted = ("accuracy", "macro_f1", "micro_f1", "f1", "perplexity", "loss")
    others = [name for name in wanted if name in known and name != report.facts.metric]
    return [report.facts.metric, *others[:1]]


def _score(trial: TrialRecord, name: str) -> str:
    return f"{trial.metrics[name]:.4f}" if name in trial.metrics else "–"


def _cost(trial: TrialRecord, currency: str) -> str:
    return "–" if trial.cost is None else money(trial.cost, currency)


def money(amount: float, currency: str) -> str:
    """Write an amount of money; small ones with enough digits to differ."""
    if amount >= 1 or amount == 0:
        return f"{currency}{amount:,.2f}"
    return f"{currency}{amount:.3g}" if amount >= 1e-4 else f"{currency}{amount:.2e}"
