"""A sweep's results for machines: `results.json` and `results.parquet`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from kovar.errors import RunError
from kovar.training.folder import write_json
from kovar.tuning.record import TrialRecord
from kovar.tuning.report.analysis import Analysis
from kovar.tuning.report.facts import SweepFacts
from kovar.tuning.report.sweep_report import FORMAT, SweepReport
from kovar.tuning.report.trial_json import trial_of_json, trial_to_json

MAX_INT: Final = 1 << 63
"""Arrow's whole numbers are below it."""
MAX_FLOAT: Final = sys.float_info.max


def results_json(report: SweepReport, analysis: Analysis) -> dict[str, Any]:
    """Return all that is known of a sweep, as plain JSON types."""
    return report.to_json() | analysis.to_json(report)


def write_results(report: SweepReport, analysis: Analysis, folder: Path) -> None:
    """Write both files, each wholly or not at all."""
    write_json(folder / "results.json", results_json(report, analysis))
    write_parquet(report, folder / "results.parquet")


def read_results(path: Path) -> tuple[SweepReport, dict[str, Any]]:
    """Read `results.json`.

    Returns:
        The sweep, and the file's content with what was concluded from it.

    Raises:
        RunError: the file is not what `write_results` writes.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        facts = SweepFacts.of_json(content["sweep"])
        trials = sorted(map(trial_of_json, content["trials"]), key=lambda one: one.number)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise RunError(
            f"cannot read the sweep's results: {problem}",
            hint=f"{path} is damaged, or was written by another version of Kovar",
        ) from None
    return SweepReport(facts, tuple(trials)), content


def write_parquet(report: SweepReport, path: Path) -> None:
    """Write one row per trial; points and metrics have a column each, histories are lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ranks = {trial.number: rank for rank, trial in enumerate(report.ranked, start=1)}
    trials = sorted(report.trials, key=lambda trial: trial.number)
    metrics = sorted({name for trial in trials for name in trial.metrics})
    columns: dict[str, pa.Array] = {
        "trial": pa.array([t.number for t in trials], pa.int64()),
        "rank": pa.array([ranks[t.number] for t in trials], pa.int64()),
    }
    columns |= {
        name: pa.array([getattr(t, name) for t in trials], kind)
        for name, kind in _plain_columns().items()
    }
    for field in report.facts.paths:
        columns[f"point.{field}"] = _values([t.point.get(field) for t in trials])
    for name in metrics:
        columns[f"metric.{name}"] = pa.array([t.metrics.get(name) for t in trials], pa.float64())
    columns["history"] = pa.array([_history(t) for t in trials], _history_type())
    columns["stays"] = pa.array([trial_to_json(t)["stays"] for t in trials], _stays_type())
    columns["incidents"] = pa.array([list(t.incidents) for t in trials], pa.list_(pa.string()))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(pa.table(columns), partial)
    partial.replace(path)


def _plain_columns() -> dict[str, Any]:
    import pyarrow as pa

    return {
        "configuration": pa.int64(),
        "seed": pa.int64(),
        "status": pa.string(),
        "reason": pa.string(),
        "precision": pa.string(),
        "precision_reason": pa.string(),
        "train_seconds": pa.float64(),
        "wall_seconds": pa.float64(),
        "num_steps": pa.int64(),
        "tokens": pa.int64(),
        "tokens_per_second": pa.float64(),
        "peak_memory_bytes": pa.int64(),
        "energy_joules": pa.float64(),
        "price_per_hour": pa.float64(),
        "cost": pa.float64(),
        "predictions": pa.string(),
    }


def _values(values: list[Any]) -> Any:
    """Return a field as a column: numbers as such; what has no one type as JSON text."""
    import pyarrow as pa

    known = [value for value in values if value is not None]
    if known and all(type(value) is bool for value in known):
        return pa.array(values, pa.bool_())
    if known and all(type(value) is int and -MAX_INT <= value < MAX_INT for value in known):
        return pa.array(values, pa.int64())
    if known and all(type(value) in (int, float) and abs(value) <= MAX_FLOAT for value in known):
        # Arrow takes no whole number for a fraction that a float cannot hold exactly.
        return pa.array([None if one is None else float(one) for one in values], pa.float64())
    if all(isinstance(value, str) for value in known):
        return pa.array(values, pa.string())
    texts = [None if value is None else json.dumps(value, sort_keys=True) for value in values]
    return pa.array(texts, pa.string())


def _history(trial: TrialRecord) -> list[dict[str, Any]]:
    return [
        {"step": one.step, "seconds": one.seconds, "metrics": list(one.metrics.items())}
        for one in trial.history
    ]


def _history_type() -> Any:
    import pyarrow as pa

    metrics = pa.map_(pa.string(), pa.float64())
    row = [("step", pa.int64()), ("seconds", pa.float64()), ("metrics", metrics)]
    return pa.list_(pa.struct(row))


def _stays_type() -> Any:
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("node", "node_type", "chip", "outcome")]
    moments = [(name, pa.float64()) for name in ("started_at", "ended_at")]
    return pa.list_(pa.struct([*texts[:3], *moments, texts[3]]))
