"""A fine-tuning spec that trains in a second: a tiny encoder on a hundred made-up reviews."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from kovar.config import load_document
from kovar.settings import Settings
from kovar.training import FineTuneSpec
from kovar.training.run import RunResult, run
from tiny import build_tiny_encoder

GOOD = ("good", "great", "fine", "lovely", "brilliant", "moving")
BAD = ("bad", "awful", "dull", "boring", "terrible", "weak")
THINGS = ("film", "movie", "story", "plot", "acting")


def write_reviews(path: Path, *, num_rows: int = 120) -> Path:
    """Write a CSV of reviews whose adjective decides the label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(num_rows):
            words, label = ((GOOD, "positive"), (BAD, "negative"))[row % 2]
            adjective, thing = words[row // 2 % len(words)], THINGS[row // 3 % len(THINGS)]
            end = " and the plot" * (row % 4)
            writer.writerow([f"the {thing} is {adjective}{end} {row}", label])
    return path


def write_spec(folder: Path, **changes: Any) -> Path:
    """Write a spec with its data and base model into `folder`; `changes` replace whole blocks."""
    if not (folder / "encoder").exists():
        build_tiny_encoder(folder / "encoder")
        write_reviews(folder / "reviews.csv")
    fields: dict[str, Any] = {
        "kind": "finetune",
        "name": "tiny",
        "model": {"base": "encoder"},
        "data": {"source": "reviews.csv", "evaluation": 24, "max_length": 32},
        "training": {
            "epochs": 8,
            "max_tokens": 128,
            "learning_rate": 0.005,
            "checkpoint_every": 20,
            "evaluate_every": 40,
        },
        "precision": "fp32",
        "registration": {"alias": "champion", "intended_use": "tests"},
    }
    path = folder / "spec.yaml"
    path.write_text(json.dumps(fields | changes, indent=1), encoding="utf-8")
    return path


def run_spec(path: Path, settings: Settings, **options: Any) -> RunResult:
    """Run a spec in this process, without Ray, unless `in_process=False` is given."""
    document = load_document(path)
    spec = document.parse(FineTuneSpec)
    options = {"in_process": True} | options
    with document.pointing():
        return run(spec, base_dir=path.parent, settings=settings, **options)


def spoil_weights(encoder: Path) -> None:
    """Make a base model so large that its first losses are not finite."""
    from safetensors.numpy import load_file, save_file

    path = encoder / "model.safetensors"
    tensors = {name: tensor * 1e18 for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
