"""Trials of two short epochs of the tiny run, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from doomed import tiny_task
from kovar.precision import Precision
from kovar.training.method import Full, Lora
from kovar.training.task import WorkerTask

FULL = Full()


def tiny_trial(
    folder: Path,
    number: int = 1,
    *,
    precision: Precision = "fp32",
    method: Full | Lora = FULL,
    options: Mapping[str, Any] | None = None,
    **training: Any,
) -> WorkerTask:
    """Prepare a trial; `options` are fields of the task, `training` those of the spec's block."""
    training = {"epochs": 2, "evaluate_every": 10} | training
    task = tiny_task(folder, run=f"trial-{number:04d}", **training)
    spec = task.spec.model_copy(update={"precision": precision, "method": method})
    return replace(task, spec=spec, purpose="trial", **(options or {}))
