"""Sweeps in the runs folder: all of them in short, or the one that somebody means."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from kovar.errors import NotFoundError, RunError, UserError, did_you_mean
from kovar.training.folder import RunFolder
from kovar.training.history.status import driver_lives
from kovar.tuning.folder import SweepFolder
from kovar.tuning.ledger import read_ledger
from kovar.tuning.record import TrialRecord
from kovar.tuning.records import records_of
from kovar.tuning.report import SweepReport, facts_of, read_results
from kovar.tuning.spec import SweepSpec
from kovar.tuning.state import SweepState

SweepStatus = Literal["running", "finished", "unfinished", "interrupted"]


@dataclass(frozen=True)
class ShelvedSweep:
    """A sweep as it lies on disk.

    Args:
        folder: of the sweep.
        status: `unfinished` has ended with trials that the budget left no room for; `interrupted`
            lost its driver.
        report: its trials so far; of a sweep without results, nothing is known of prices.
        results: content of `results.json`; None while there is none that is up to date.
        started_at: UNIX time; None where no trial has started.
    """

    folder: Path
    status: SweepStatus
    report: SweepReport
    results: Mapping[str, Any] | None
    started_at: float | None

    @property
    def sweep(self) -> str:
        """The sweep's id."""
        return self.folder.name

    def to_json(self) -> dict[str, Any]:
        """Return it in short, as plain JSON types."""
        best = self.report.best_configuration
        score = best.metric(self.report.facts.metric) if best else None
        chosen = (self.results or {}).get("recommendation") or {}
        return {
            "sweep": self.sweep,
            "name": self.report.facts.name,
            "status": self.status,
            "started_at": self.started_at,
            "counts": self.report.counts,
            "metric": self.report.facts.metric,
            "best": score.to_json() if score else None,
            "best_configuration": best.number if best else None,
            "recommended": chosen.get("configuration"),
            "cost": self.report.cost,
            "folder": str(self.folder),
        }


def list_sweeps(runs_dir: Path) -> list[ShelvedSweep]:
    """Return the sweeps of a folder, the newest first; those that cannot be read are left out."""
    if not runs_dir.is_dir():
        return []
    found = []
    for path in runs_dir.iterdir():
        if _is_sweep(path):
            try:
                found.append(read_sweep(path))
            except RunError:
                continue
    return sorted(found, key=lambda one: (one.started_at or 0.0, one.sweep), reverse=True)


def find_sweep(runs_dir: Path, reference: str) -> ShelvedSweep:
    """Return the sweep that a text means: an id, its beginning, a name (its newest), or a folder.

    Raises:
        NotFoundError: nothing fits; names what is spelled like it.
        UserError: several sweeps begin so.
        RunError: the sweep's files cannot be read.
    """
    for path in (Path(reference), runs_dir / reference):
        if ("/" in reference or path.parent == runs_dir) and _is_sweep(path):
            return read_sweep(path.absolute())
    ids = sorted(path.name for path in runs_dir.glob("*") if _is_sweep(path))
    named = [one for one in list_sweeps(runs_dir) if one.report.facts.name == reference]
    if named:
        return named[0]
    matches = [one for one in ids if one.startswith(reference)]
    if len(matches) == 1:
        return read_sweep(runs_dir / matches[0])
    if matches:
        shown = ", ".join(matches[:6]) + (", …" if matches[6:] else "")
        raise UserError("several sweeps begin so", field="SWEEP", got=reference, allowed=shown)
    raise NotFoundError(
        "no such sweep",
        field="SWEEP",
        got=reference,
        allowed="a sweep's id or the beginning of one, its name, or its folder",
        hint=did_you_mean(reference, ids)
        or ("kovar sweeps list shows them" if ids else f"there are no sweeps in {runs_dir} yet"),
    )


def read_sweep(path: Path) -> ShelvedSweep:
    """Read a sweep from its results, or from its ledger while they are not written.

    Raises:
        RunError: its files cannot be read.
    """
    folder = SweepFolder(path)
    lives = driver_lives(RunFolder(path))
    if folder.results.exists() and not lives:
        report, results = read_results(folder.results)
        partial = any(trial.status == "unfinished" for trial in report.trials)
        status: SweepStatus = "unfinished" if partial else "finished"
        return ShelvedSweep(path, status, report, results, _started(report))
    report = _from_ledger(folder)
    return ShelvedSweep(path, "running" if lives else "interrupted", report, None, _started(report))


def _from_ledger(folder: SweepFolder) -> SweepReport:
    try:
        spec = SweepSpec.model_validate_json(folder.spec.read_bytes())
    except (OSError, ValidationError) as problem:
        raise RunError(
            f"cannot read the sweep's spec: {type(problem).__name__}",
            hint=f"{folder.spec} is damaged, or was written by another version of Kovar",
        ) from None
    state = SweepState.of(read_ledger(folder.ledger))
    now = time.time()
    records = records_of(state, spec, price=lambda trial: None, now=now)
    return SweepReport(facts_of(spec), tuple(_until(record, now) for record in records))


def _until(record: TrialRecord, now: float) -> TrialRecord:
    """End the stays that go on."""
    stays = (stay if stay.ended_at else replace(stay, ended_at=now) for stay in record.stays)
    return replace(record, stays=tuple(stays))


def _is_sweep(path: Path) -> bool:
    folder = SweepFolder(path)
    return folder.ledger.is_file() or (folder.results.is_file() and folder.spec.is_file())


def _started(report: SweepReport) -> float | None:
    return min((stay.started_at for t in report.trials for stay in t.stays), default=None)
