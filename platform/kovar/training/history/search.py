"""Finding runs in the runs folder: all of them in short, or the one that somebody means."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kovar.errors import NotFoundError, UserError, did_you_mean
from kovar.training.folder import RunFolder
from kovar.training.history.moment import Event, seconds_of
from kovar.training.history.run_history import moment_json, read_facts
from kovar.training.history.score import better, primary_metric
from kovar.training.history.status import LIVE, Status, driver_lives, status_of

_END_BYTES: Final = 1 << 14
"""Enough of a log's beginning and end to tell how it went, however long the run was."""

_ID: Final = re.compile(r"(?P<model>.+)-(?:[0-9a-f]{10}(?:-\d+)?|\d{8}-\d{6}-\d+)")
"""Runs end with a hash and perhaps a repetition, sweeps with the moment of their start."""


@dataclass(frozen=True)
class RunSummary:
    """A run in one row. Moments are seconds since 1970."""

    run: str
    kind: str
    model: str
    status: Status
    started_at: float
    seconds: float
    metric: str | None
    """Name of the metric that the run is judged by."""
    score: float | None
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "run": self.run,
            "kind": self.kind,
            "model": self.model,
            "status": self.status,
            "started_at": moment_json(self.started_at),
            "seconds": self.seconds,
            "metric": self.metric,
            "score": self.score,
            "folder": str(self.folder),
        }


def list_runs(
    runs_dir: Path, *, status: Status | None = None, model: str | None = None
) -> list[RunSummary]:
    """Return the runs and sweeps of a folder, the newest first.

    Args:
        runs_dir: folder with one folder per run.
        status: only these.
        model: only runs of the model with this name.
    """
    if not runs_dir.is_dir():
        return []
    folders = (path for path in runs_dir.iterdir() if path.is_dir())
    found = filter(None, (summarize(RunFolder(path)) for path in folders))
    chosen = [
        one
        for one in found
        if (status is None or one.status == status) and (model is None or one.model == model)
    ]
    return sorted(chosen, key=lambda one: one.started_at, reverse=True)


def summarize(folder: RunFolder) -> RunSummary | None:
    """Read a run in short; None for a folder that is no run."""
    if not folder.events.exists():
        return _summarize_sweep(folder)
    first, last = _ends(folder.events)
    if not first:
        return None
    result, lives = read_facts(folder.result), driver_lives(folder)
    status = status_of(last, lives=lives, complete=bool(result))
    start = seconds_of(first[0]) - _before(first)
    end = time.time() if status in LIVE else max(seconds_of(event) for event in last)
    spec = read_facts(folder.spec)
    metric, score = _score(result, first, last)
    queued: Event = first[0] if first[0].get("event") == "queued" else {}
    return RunSummary(
        run=folder.run,
        kind=str(queued.get("kind") or spec.get("kind") or "finetune"),
        model=str(queued.get("spec") or spec.get("name") or _model_of(folder.run)),
        status=status,
        started_at=start,
        seconds=end - start,
        metric=metric,
        score=score,
        folder=folder.root,
    )


def find_run(runs_dir: Path, reference: str) -> RunFolder:
    """Return the run that a text means: an id, a folder, a model's newest run, or a prefix.

    Raises:
        NotFoundError: nothing fits; names what is spelled like it.
        UserError: several runs begin so.
    """
    for path in (Path(reference), runs_dir / reference):
        if path.name == "events.jsonl" and path.is_file():
            return RunFolder(path.parent.absolute())
        if RunFolder(path).events.exists() and (path.parent == runs_dir or "/" in reference):
            return RunFolder(path.absolute())
    runs = list_runs(runs_dir)
    of_model = [one for one in runs if reference in (one.run, one.model)]
    if of_model:
        return RunFolder(of_model[0].folder)
    matches = [one for one in runs if one.run.startswith(reference)]
    if len(matches) == 1:
        return RunFolder(matches[0].folder)
    if matches:
        raise UserError(
            "several runs begin so",
            field="RUN",
            got=reference,
            allowed=", ".join(one.run for one in matches[:6]) + (", …" if matches[6:] else ""),
        )
    raise NotFoundError(
        "no such run",
        field="RUN",
        got=reference,
        allowed="a run's id or the beginning of one, a model's name, or a run's folder",
        hint=did_you_mean(reference, list(dict.fromkeys(n for o in runs for n in (o.model, o.run))))
        or ("kovar runs list shows them" if runs else f"there are no runs in {runs_dir} yet"),
    )


def trials_of(folder: RunFolder) -> list[RunSummary]:
    """Return the trials of a sweep in their order; none for a run."""
    trials = sorted(path for path in folder.root.glob("trial-*") if path.is_dir())
    return [found for path in trials if (found := summarize(RunFolder(path))) is not None]


def _summarize_sweep(folder: RunFolder) -> RunSummary | None:
    trials = trials_of(folder)
    if not trials:
        return None
    result = folder.root / "results.json"
    lives = driver_lives(folder)
    status: Status = "running" if lives else "finished" if result.exists() else "interrupted"
    started = min(trial.started_at for trial in trials)
    ended = max(trial.started_at + trial.seconds for trial in trials)
    best: RunSummary | None = None
    for trial in trials:
        if trial.metric is None or trial.score is None:
            continue
        if best is None or best.score is None or better(trial.metric, trial.score, best.score):
            best = trial
    return RunSummary(
        run=folder.run,
        kind="sweep",
        model=_model_of(folder.run),
        status=status,
        started_at=started,
        seconds=ended - started,
        metric=best.metric if best else None,
        score=best.score if best else None,
        folder=folder.root,
    )


def _model_of(run: str) -> str:
    match = _ID.fullmatch(run)
    return match["model"] if match else run


def _ends(path: Path) -> tuple[list[Event], list[Event]]:
    """Return the first events of a log, and the last ones."""
    with path.open("rb") as file:
        head = file.read(_END_BYTES)
        size = file.seek(0, 2)
        if size <= _END_BYTES:
            return (events := _parse(head)), events
        file.seek(size - _END_BYTES)
        return _parse(head), _parse(file.read())


def _parse(content: bytes) -> list[Event]:
    found = []
    for line in content.split(b"\n"):
        try:
            event = json.loads(line)
            seconds_of(event)
        except (ValueError, KeyError, TypeError):
            continue
        found.append(event)
    return found


def _before(first: Sequence[Event]) -> float:
    """Return the seconds of preparation before a run was queued."""
    for event in first[:2]:
        if event.get("event") == "prepared" and isinstance(event.get("seconds"), int | float):
            return float(event["seconds"])
    return 0.0


def _score(
    result: dict[str, Any], first: Sequence[Event], last: Sequence[Event]
) -> tuple[str | None, float | None]:
    metrics: Any = result.get("metrics", {}).get("evaluation")
    if not metrics:
        scored = [event for event in last if event.get("event") == "evaluated"]
        metrics = scored[-1].get("metrics") if scored else None
    if not isinstance(metrics, dict):
        return None, None
    name = primary_metric(first, metrics)
    value = metrics.get(name) if name else None
    return (name, float(value)) if isinstance(value, int | float) else (None, None)
