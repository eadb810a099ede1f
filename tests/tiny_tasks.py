"""Tiny data sets of every task, and specs that learn them in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_run import BAD, GOOD, THINGS, write_spec

TRAINING: dict[str, Any] = {
    "epochs": 8,
    "max_tokens": 256,
    "learning_rate": 0.005,
    "evaluate_every": 40,
}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def topic_rows(num_rows: int = 160) -> list[dict[str, Any]]:
    """Return texts with any number of the labels `acting`, `plot` and `good`."""
    rows = []
    for row in range(num_rows):
        labels = [name for bit, name in enumerate(("acting", "plot", "good")) if row >> bit & 1]
        words = ["the", *labels[: len(labels) - ("good" in labels)]]
        words += ["is", (GOOD if "good" in labels else BAD)[row // 8 % 6]]
        rows.append({"text": " ".join(words + ["very"] * (row // 48)), "label": labels})
    return rows


def tagged_rows(num_rows: int = 160) -> list[dict[str, Any]]:
    """Return sentences in which a thing and what it is are entities."""
    rows = []
    for row in range(num_rows):
        adjective = (GOOD + BAD)[row % 12]
        tokens = ["the", THINGS[row % 5], "is", "very", adjective, str(row)]
        rows.append({"tokens": tokens, "tags": ["O", "B-THING", "O", "B-HOW", "I-HOW", "O"]})
    return rows


def pair_rows(num_rows: int = 160) -> list[dict[str, Any]]:
    """Return pairs of texts, of which the second decides the label."""
    rows = []
    for row in range(num_rows):
        words, label = ((GOOD, "praise"), (BAD, "blame"))[row & 1]
        first = (GOOD, BAD)[row >> 1 & 1][row // 4 % 6]
        rows.append({"first": f"it is {first}", "second": words[row // 24 % 6], "label": label})
    return rows


def write_task(folder: Path, task: str, rows: list[dict[str, Any]], **changes: Any) -> Path:
    """Write a spec of a task with its data and base model; `changes` replace whole blocks."""
    write_lines(folder / "rows.jsonl", rows)
    data = {"source": "rows.jsonl", "evaluation": 24, "max_length": 32, **changes.pop("data", {})}
    return write_spec(folder, task=task, data=data, **({"training": TRAINING} | changes))
