"""The folder of one sweep: the one object that knows every path in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SweepFolder:
    """Paths below `root`, which is `<runs_dir>/<sweep id>`."""

    root: Path

    @property
    def sweep(self) -> str:
        """The sweep's id."""
        return self.root.name

    @property
    def spec(self) -> Path:
        """The sweep and its base as they were run, with every default (JSON is valid YAML)."""
        return self.root / "spec.yaml"

    @property
    def ledger(self) -> Path:
        """What happened; see kovar.tuning.ledger."""
        return self.root / "ledger.jsonl"

    @property
    def results(self) -> Path:
        """The ranked trials; see kovar.tuning.report."""
        return self.root / "results.json"

    @property
    def result(self) -> Path:
        """What came of it; written last, so its presence means that the sweep is complete."""
        return self.root / "result.json"

    @property
    def lock(self) -> Path:
        """Held by the driver that executes the sweep."""
        return self.root / "sweep.lock"

    @property
    def heartbeat(self) -> Path:
        """Touched by the driver that executes the sweep."""
        return self.root / "heartbeat.json"

    @property
    def ray(self) -> Path:
        """Ray Tune's own files; Kovar never reads them."""
        return self.root / "ray"

    def trial(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.root / f"trial-{number:04d}"
