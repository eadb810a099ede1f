"""What can be trained: one table, one row and one small file for each task."""

from __future__ import annotations

from typing import Final

from kovar.training.tasks.task import (
    Collated,
    Direction,
    Examined,
    Tally,
    Task,
    TaskName,
    better,
    title,
)
from kovar.training.tasks.text_classification import TextClassification

TASKS: Final[dict[TaskName, Task]] = {
    "text-classification": TextClassification(),
}

__all__ = [
    "TASKS",
    "Collated",
    "Direction",
    "Examined",
    "Tally",
    "Task",
    "TaskName",
    "TextClassification",
    "better",
    "title",
]
