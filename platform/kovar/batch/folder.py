"""The folder of one evaluation: the one object that knows every path in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EvaluationFolder:
    """Paths below `root`, which is `<runs_dir>/<id of the evaluation>`."""

    root: Path

    @property
    def run(self) -> str:
        """The evaluation's id."""
        return self.root.name

    @property
    def spec(self) -> Path:
        """The spec as it was run, with every default spelled out (JSON is valid YAML)."""
        return self.root / "spec.yaml"

    @property
    def plan(self) -> Path:
        """Placement and precision, with the reason."""
        return self.root / "plan.json"

    @property
    def events(self) -> Path:
        """The event log; see kovar.events."""
        return self.root / "events.jsonl"

    @property
    def report(self) -> Path:
        """The report as Markdown."""
        return self.root / "report.md"

    @property
    def page(self) -> Path:
        """The report as one HTML page, pictures included."""
        return self.root / "report.html"

    @property
    def reliability(self) -> Path:
        """Picture of accuracy over confidence."""
        return self.root / "reliability.png"

    @property
    def confusion(self) -> Path:
        """Picture of the confusion matrix."""
        return self.root / "confusion-matrix.png"

    @property
    def result(self) -> Path:
        """What the registry holds, as JSON; its presence means that the evaluation is complete."""
        return self.root / "result.json"

    @property
    def lock(self) -> Path:
        """Held by the driver that executes the evaluation."""
        return self.root / "run.lock"
