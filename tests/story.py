"""Hand-written event logs: each line says how many seconds have passed since the first."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kovar.training.folder import RunFolder

BEGIN = datetime(2026, 5, 1, 12, tzinfo=UTC)
START = BEGIN.timestamp()


def told(at_s: float, event: str, /, *, rank: int = -1, attempt: int = 1, **fields: Any) -> dict:
    """Return one event."""
    moment = (BEGIN + timedelta(seconds=at_s)).isoformat(timespec="microseconds")
    base = {"v": 1, "time": moment, "run": "r", "attempt": attempt, "rank": rank}
    return {**base, "event": event, **fields}


def step(at_s: float, number: int, *, took: float = 10, attempt: int = 1, **fields: Any) -> dict:
    """Return a `step` event of rank 0."""
    known = {
        "epoch": 0, "loss": 1 / number, "learning_rate": 1e-4, "tokens": 900, "targets": 9,
        "seconds": took, "padding": 0.1, "gradient_norm": 0.5,
    }  # fmt: skip
    return told(at_s, "step", rank=0, attempt=attempt, step=number, **known | fields)


def started(at_s: float, *, attempt: int = 1, **fields: Any) -> dict:
    """Return rank 0's `started` event."""
    known = {
        "world_size": 2, "num_steps": 40, "epochs": 1, "device": "cpu", "precision": "bf16",
        "reason": "bf16: as asked", "pid": 7,
    }  # fmt: skip
    return told(at_s, "started", rank=0, attempt=attempt, **known | fields)


UNDISTURBED = [
    told(0, "queued", spec="tiny", kind="finetune"),
    told(0, "prepared", seconds=8, spans={"downloading x": 2, "tokenizing train": 3}),
    told(1, "planned", num_workers=2, reason="bf16: as asked"),
    told(4, "placing", num_workers=2),
    told(34, "placed", num_workers=2, nodes=["a", "b"]),
    started(40),
    told(45, "compiled", rank=0, step=1, seconds=4),
    step(55, 10),
    told(57, "checkpoint", rank=0, step=10, path="step-10", size_bytes=9, seconds=2),
    step(67, 20),
    told(70, "evaluated", rank=0, step=20, data="evaluation", seconds=3,
         metrics={"accuracy": 0.8, "loss": 0.4}),
    told(72, "evaluated", rank=0, step=20, data="evaluation", seconds=2, final=True,
         metrics={"accuracy": 0.81, "macro_f1": 0.8}),
    told(73, "finished", rank=0, step=20, weights_digest="ab" * 32),
    told(75, "registered", model="tiny", version=1, digest="cd" * 32),
]  # fmt: skip

CRASHED = [
    told(0, "queued", spec="tiny", kind="finetune"),
    told(1, "planned", num_workers=2, reason="bf16: as asked"),
    told(1, "placing", num_workers=2),
    told(2, "placed", num_workers=2, nodes=["a"]),
    started(3),
    step(13, 10),
    told(14, "checkpoint", rank=0, step=10, path="step-10", size_bytes=9, seconds=1),
    step(24, 20),
    step(34, 30),
    told(60, "placing", num_workers=2),
    told(62, "placed", num_workers=2, nodes=["a"]),
    started(65, attempt=2),
    told(66, "resumed", rank=0, attempt=2, step=10, path="step-10", ignored=["step-20: torn"]),
    step(76, 20, attempt=2),
    step(86, 30, attempt=2),
    step(96, 40, attempt=2),
]


def write_story(root: Path, events: list[dict], **files: Any) -> RunFolder:
    """Write a run's folder: its log, and other files as JSON by name."""
    root.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(root)
    folder.events.write_text("".join(json.dumps(event) + "\n" for event in events))
    for name, content in files.items():
        getattr(folder, name).write_text(json.dumps(content))
    return folder
