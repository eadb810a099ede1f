"""A finished sweep without a run: records and answers that follow from a formula."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kovar.tuning.record import Evaluation, Stay, TrialRecord
from kovar.tuning.report import SweepFacts, SweepReport

RATE = "training.learning_rate"
FACTS = SweepFacts("reviews", "accuracy", "max", (RATE, "precision"), frozenset({RATE}))
NUM_ROWS = 400


def trial(number: int, accuracy: float | None = None, **fields: Any) -> TrialRecord:
    """Return one trial; it is finished if it has an accuracy."""
    known: dict[str, Any] = {
        "number": number,
        "configuration": number,
        "seed": 0,
        "point": {RATE: 1e-5 * number, "precision": "fp32"},
        "status": "failed" if accuracy is None else "finished",
        "metrics": {} if accuracy is None else {"accuracy": accuracy},
    }
    return TrialRecord(**known | fields)


def report(*trials: TrialRecord, facts: SweepFacts = FACTS) -> SweepReport:
    return SweepReport(facts, trials)


def write_answers(path: Path, right: np.ndarray, *, labels: int = 2) -> None:
    """Write a trial's answers: row i is of label i mod `labels`, and right or off by one."""
    true = np.arange(len(right), dtype=np.int32) % labels
    predicted = np.where(right, true, (true + 1) % labels).astype(np.int32)
    loss = np.where(right, 0.1, 2.0).astype(np.float32)
    names = json.dumps([f"label-{n}" for n in range(labels)])
    table = pa.table({"true": true, "predicted": predicted, "loss": loss})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"kovar.labels": names}), path)


def answered(
    folder: Path, number: int, right: np.ndarray, *, hours: float = 1.0,
    price: float | None = 1.0, **fields: Any,
) -> TrialRecord:  # fmt: skip
    """Return a finished trial with answers, `right` being the rows that it gets right."""
    name = f"trial-{number:04d}/answers.parquet"
    write_answers(folder / name, right)
    common = {"predictions": name, "wall_seconds": 3600 * hours, "price_per_hour": price}
    return trial(number, float(right.mean()), **common | fields)


def first(count: int) -> np.ndarray:
    """Return that the first rows are right."""
    return np.arange(NUM_ROWS) < count


def large(folder: Path, *, num_rates: int = 8, seeds: int = 2) -> SweepReport:
    """Return a sweep over learning rate, precision and warm-up on two node types, with answers."""
    facts = replace(FACTS, paths=(RATE, "precision", "training.warmup"))
    generator = np.random.default_rng(0)
    trials, number, moment = [], 0, dict.fromkeys(("cpu-a", "cpu-b", "l4-a"), 1_790_000_000.0)
    configuration = 0
    rows = generator.random(NUM_ROWS)
    for rate in np.logspace(-5.5, -2.5, num_rates):
        for precision in ("fp32", "bf16"):
            for warmup in (0.0, 0.1):
                configuration += 1
                for seed in range(seeds):
                    number += 1
                    node = "l4-a" if warmup else ("cpu-a", "cpu-b")[number % 2]
                    quality = 0.83 - 0.06 * (math.log10(rate) + 4.2) ** 2
                    quality += 0.01 * (warmup > 0) + 0.004 * generator.standard_normal()
                    point = {RATE: float(rate), "precision": precision, "training.warmup": warmup}
                    made = _trial(number, configuration, seed, point, quality, node, moment)
                    if made.status == "finished":
                        name = f"trial-{number:04d}/answers.parquet"
                        noise = 0.03 * generator.standard_normal(NUM_ROWS)
                        right = rows + noise < quality
                        write_answers(folder / name, right)
                        scores = made.metrics | {"accuracy": float(right.mean())}
                        made = replace(made, predictions=name, metrics=scores)
                    trials.append(made)
    return SweepReport(facts, tuple(trials))


def _counted(history: tuple[Evaluation, ...], quality: float, status: str) -> dict[str, float]:
    if status == "diverged":
        return {}
    return dict(history[-1].metrics) | ({"accuracy": quality} if status == "finished" else {})


def _trial(
    number: int,
    configuration: int,
    seed: int,
    point: dict[str, Any],
    quality: float,
    node: str,
    moment: dict[str, float],
) -> TrialRecord:
    seconds = (20.0 if node == "l4-a" else 90.0) * (0.6 if point["precision"] == "bf16" else 1.0)
    status, reason = "finished", None
    if point[RATE] > 2e-3 and point["precision"] == "bf16":
        status, reason, seconds = "diverged", "step 7: loss nan", seconds / 5
    elif number % 13 == 0:
        status, seconds = "stopped", seconds / 3
    share = {"finished": 1.0, "stopped": 0.34, "diverged": 0.1}[status]
    history = tuple(
        Evaluation(
            step=20 * part,
            seconds=seconds * part / (10 * share),
            metrics={
                "accuracy": 0.5 + (quality - 0.5) * (1 - math.exp(-part / 3)),
                "loss": 0.7 - 0.4 * (1 - math.exp(-part / 3)),
            },
        )
        for part in range(1, round(10 * share) + 1)
    )
    start, moment[node] = moment[node], moment[node] + seconds + 2
    kind, chip, price = ("l4", "NVIDIA L4", 0.7) if node == "l4-a" else ("cpu", "AVX-512", 0.2)
    stays: tuple[Stay, ...] = (Stay(node, kind, chip, start, start + seconds, status),)
    incidents: tuple[str, ...] = ()
    if number == 5:
        half = start + seconds / 2
        stays = (
            Stay(node, kind, chip, start, half, "lost"),
            Stay("cpu-a", "cpu", "AVX-512", moment["cpu-a"], moment["cpu-a"] + seconds, status),
        )
        moment["cpu-a"] += seconds + 2
        incidents = (f"node {node} was lost; resumed at step 100 on cpu-a",)
    return TrialRecord(
        number=number,
        configuration=configuration,
        seed=seed,
        point=point,
        status=status,  # type: ignore[arg-type]
        reason=reason,
        metrics=_counted(history, quality, status),
        history=history,
        precision=point["precision"],
        train_seconds=seconds * 0.9,
        wall_seconds=seconds,
        num_steps=20 * len(history),
        tokens=round(60_000 * share),
        peak_memory_bytes=900_000_000 + 10_000_000 * number,
        energy_joules=seconds * 60,
        price_per_hour=price,
        stays=stays,
        incidents=incidents,
    )
