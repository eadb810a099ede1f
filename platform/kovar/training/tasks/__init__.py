"""What can be trained: one table, one row and one small file for each task."""

from __future__ import annotations

from typing import Final

from kovar.training.tasks.causal_lm import CausalLM
from kovar.training.tasks.masked_lm import MaskedLM
from kovar.training.tasks.multilabel_classification import MultilabelClassification
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
from kovar.training.tasks.token_classification import TokenClassification

TASKS: Final[dict[TaskName, Task]] = {
    "text-classification": TextClassification(),
    "multilabel-classification": MultilabelClassification(),
    "token-classification": TokenClassification(),
    "masked-lm": MaskedLM(),
    "causal-lm": CausalLM(),
}

__all__ = [
    "TASKS",
    "CausalLM",
    "Collated",
    "Direction",
    "Examined",
    "MaskedLM",
    "MultilabelClassification",
    "Tally",
    "Task",
    "TaskName",
    "TextClassification",
    "TokenClassification",
    "better",
    "title",
]
