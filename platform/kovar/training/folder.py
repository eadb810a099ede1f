"""The folder of one run: the one object that knows every path in it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunFolder:
    """Paths below `root`, which is `<runs_dir>/<run id>`."""

    root: Path

    @property
    def run(self) -> str:
        """The run's id."""
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
    def checkpoints(self) -> Path:
        """Interrupted work; see kovar.training.checkpoint."""
        return self.root / "checkpoints"

    @property
    def adjustments(self) -> Path:
        """What the run changed about itself to go on; see kovar.training.adjustments."""
        return self.root / "adjustments.json"

    @property
    def attempts(self) -> Path:
        """A file for each start of the workers; see kovar.training.attempt."""
        return self.root / "attempts"

    @property
    def model(self) -> Path:
        """The trained weights, tokenizer and golden examples: what becomes the version."""
        return self.root / "model"

    @property
    def merged(self) -> Path:
        """The trained adapter merged into its base, where the spec asks for it."""
        return self.root / "merged"

    @property
    def metrics(self) -> Path:
        """Metrics per data set; written last by the worker, so its presence means trained."""
        return self.root / "metrics.json"

    @property
    def curve(self) -> Path:
        """Picture of loss, learning rate and accuracy over the steps."""
        return self.root / "learning-curve.png"

    @property
    def page(self) -> Path:
        """The run as a page that needs no network: curves, times, attempts, spec."""
        return self.root / "run.html"

    @property
    def card(self) -> Path:
        """The version's model card."""
        return self.root / "card.md"

    @property
    def tensorboard(self) -> Path:
        """Scalars for TensorBoard."""
        return self.root / "tensorboard"

    @property
    def ray(self) -> Path:
        """Ray Train's own files; Kovar never reads them."""
        return self.root / "ray"

    @property
    def result(self) -> Path:
        """The registered version; its presence means that the run is complete."""
        return self.root / "result.json"

    @property
    def lock(self) -> Path:
        """Held by the driver that executes the run."""
        return self.root / "run.lock"

    @property
    def heartbeat(self) -> Path:
        """Touched by the driver that executes the run; see kovar.training.heartbeat."""
        return self.root / "heartbeat.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
