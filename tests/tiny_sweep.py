"""Sweeps over the tiny fine-tuning spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kovar.tuning import SweepSpec
from tiny_run import write_spec

GRID: dict[str, Any] = {
    "training.learning_rate": {"kind": "grid", "values": [1e-4, 1e-3]},
    "precision": {"kind": "grid", "values": ["fp32", "bf16"]},
}


def sweep_spec(search: dict[str, Any], **fields: Any) -> SweepSpec:
    """Validate a sweep over `spec.yaml`; `fields` are added or replaced."""
    return SweepSpec.model_validate_json(
        json.dumps({"kind": "sweep", "name": "s", "base": "spec.yaml", "search": search} | fields)
    )


def write_sweep(folder: Path, search: dict[str, Any], **fields: Any) -> Path:
    """Write a sweep with its base spec, data and model into `folder`."""
    write_spec(folder)
    path = folder / "sweep.yaml"
    spec = {"kind": "sweep", "name": "s", "base": "spec.yaml", "search": search} | fields
    path.write_text(json.dumps(spec, indent=1))
    return path
