"""What an evaluation says: a table on the terminal, a Markdown report, an HTML page, pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.markup import escape
from rich.table import Table

from kovar.evaluation import ClassificationMetrics
from kovar.evaluation.pictures import draw_confusion, draw_reliability

if TYPE_CHECKING:
    from kovar.batch.evaluate import EvaluationResult
    from kovar.registry.interval import Interval

HEADLINE: Final = {
    "f1": "F1 of entities",
    "precision": "precision of entities",
    "recall": "recall of entities",
    "micro_f1": "micro F1",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "roc_auc": "ROC-AUC (macro, one-vs-rest)",
    "pr_auc": "PR-AUC (macro, one-vs-rest)",
    "loss": "cross-entropy in nats",
    "ece": "calibration error (ECE, 15 bins)",
    "brier": "Brier score (0 to 2)",
    "hamming_loss": "share of wrong pairs of row and label",
}
"""Metric → how a reader calls it, in the order of the tables."""

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #8884;padding:.3rem .7rem;"
    "text-align:left}img{max-width:100%}"
)

Rows = list[list[str]]


def metric_table(result: EvaluationResult) -> Table:
    """Draw the metrics of all rows with their intervals."""
    record = result.stored.record
    table = Table("metric", "value", "95 % interval", title=escape(_title(result)))
    for row in _metric_rows(result):
        table.add_row(*map(escape, row))
    table.caption = f"{record.metrics['num_rows']:,} rows"
    return table


def slice_table(result: EvaluationResult) -> Table | None:
    """Draw the slices; None where there are none."""
    rows = _slice_rows(result)
    if not rows:
        return None
    table = Table("slice", "rows", "accuracy", "95 % interval", "macro F1", "95 % interval")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def write_report(result: EvaluationResult) -> None:
    """Write the pictures, the Markdown report and the HTML page into the evaluation's folder."""
    folder, found = result.folder, result.assessment
    if found.reliability:
        draw_reliability(found.reliability, folder.reliability, title=_title(result))
    if isinstance(found.metrics, ClassificationMetrics):
        draw_confusion(
            found.metrics.confusion_matrix,
            found.metrics.labels,
            folder.confusion,
            title=_title(result),
        )
    folder.report.write_text(report(result), encoding="utf-8")
    folder.page.write_text(page(result), encoding="utf-8")


def report(result: EvaluationResult) -> str:
    """Write the report as Markdown; equal findings give equal text."""
    parts = [f"# {_title(result)}"]
    for title, head, rows in _sections(result):
        parts += [f"## {title}", _markdown(head, rows)]
    parts += [f"![{name}]({path.name})" for name, path in _pictures(result)]
    return "\n\n".join(parts) + "\n"


def page(result: EvaluationResult) -> str:
    """Write the report as one HTML page that holds its pictures."""
    title = html.escape(_title(result))
    parts = [f"<h1>{title}</h1>"]
    for name, head, rows in _sections(result):
        parts += [f"<h2>{name}</h2>", _html(head, rows)]
    parts += [_image(path) for _, path in _pictures(result)]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _pictures(result: EvaluationResult) -> list[tuple[str, Path]]:
    folder = result.folder
    drawn = [("Reliability", folder.reliability), ("Confusion matrix", folder.confusion)]
    return [(name, path) for name, path in drawn if path.is_file()]


def _title(result: EvaluationResult) -> str:
    return f"{result.version} on {result.stored.record.dataset}"


def _sections(result: EvaluationResult) -> list[tuple[str, list[str], Rows]]:
    interval = "95 % interval"
    labels = ["Label", "Rows", "Precision", "Recall", "F1", interval, "ROC-AUC", "PR-AUC"]
    slices = ["Slice", "Rows", "Accuracy", interval, "Macro F1", interval]
    bins = ["Confidence", "Rows", "Mean confidence", "Accuracy"]
    sections: list[tuple[str, list[str], Rows]] = [
        ("What was evaluated", ["Fact", "Value"], _fact_rows(result)),
        ("Metrics", ["Metric", "Value", interval], _metric_rows(result)),
        ("Labels", labels, _label_rows(result)),
        ("Slices", slices, _slice_rows(result)),
        ("Calibration", bins, _bin_rows(result)),
    ]
    return [section for section in sections if section[2]]


def _fact_rows(result: EvaluationResult) -> Rows:
    record = result.stored.record
    rows = [
        ["Version", f"{result.version} ({result.version.digest})"],
        ["Data", f"{record.data['source']}, {record.data['split']} rows"],
        ["Rows", f"{record.metrics['num_rows']:,}"],
        ["Digest of the rows", record.rows],
        ["Runtime", f"{record.runtime}, {record.precision}, {record.chip}"],
        ["Evaluation", result.stored.digest],
    ]
    if result.trained_on:
        rows.append(["Caution", "the version was trained on some of these rows"])
    return rows


def _metric_rows(result: EvaluationResult) -> Rows:
    metrics, intervals = result.stored.record.metrics, result.assessment.intervals
    return [
        [title, f"{metrics[name]:.4f}", _shown(intervals.get(name))]
        for name, title in HEADLINE.items()
        if name in metrics and not (name == "micro_f1" and "confusion_matrix" in metrics)
    ]


def _label_rows(result: EvaluationResult) -> Rows:
    intervals = result.assessment.intervals
    return [
        [
            label,
            f"{one.support:,}",
            *(f"{value:.4f}" for value in (one.precision, one.recall, one.f1)),
            _shown(intervals.get(f"per_class.{label}.f1")),
            *("" if area is None else f"{area:.4f}" for area in (one.roc_auc, one.pr_auc)),
        ]
        for label, one in result.assessment.metrics.per_class.items()
    ]


def _slice_rows(result: EvaluationResult) -> Rows:
    return [
        [
            f"{one.by} {one.value}" if one.by == "length" else f"{one.by} = {one.value}",
            f"{one.num_rows:,}",
            f"{one.accuracy:.4f}",
            _shown(one.accuracy_interval),
            f"{one.macro_f1:.4f}",
            _shown(one.macro_f1_interval),
        ]
        for one in result.assessment.slices
    ]


def _bin_rows(result: EvaluationResult) -> Rows:
    return [
        [
            f"{one.low:.2f} to {one.high:.2f}",
            f"{one.num_rows:,}",
            f"{one.confidence:.4f}",
            f"{one.accuracy:.4f}",
        ]
        for one in result.assessment.reliability
        if one.num_rows
    ]


def _shown(interval: Interval | None) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        plain = (" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in cells)
        return f"| {' | '.join(plain)} |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def _html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{path.stem}" src="data:image/png;base64,{data}"></p>'
