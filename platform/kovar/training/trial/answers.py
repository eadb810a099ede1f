"""A trial's answers to the evaluation split as Parquet, for paired comparisons of trials.

One row per row of the split, in its order. The columns are those of `Tally.answers`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

    from kovar.training.tasks import Task
    from kovar.training.tasks.task import Answers

ANSWERS_FILE: Final = "predictions.parquet"


def write_answers(answers: Answers, path: Path, *, task: Task, labels: Sequence[str]) -> None:
    """Write the file.

    Args:
        answers: by column.
        path: of the file.
        task: what was learned; its name is among the metadata as `kovar.task`.
        labels: names of the labels, among the metadata as `kovar.labels`, a JSON list.
    """
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({name: _column(values) for name, values in answers.items()})
    metadata = {"kovar.task": task.name, "kovar.labels": json.dumps(list(labels))}
    parquet.write_table(table.replace_schema_metadata(metadata), path)


def _column(values: Any) -> pa.Array:
    """Return numbers as int32 or float32, lists as lists of int32."""
    import numpy as np
    import pyarrow as pa

    if not isinstance(values, np.ndarray):
        return pa.array(values, pa.list_(pa.int32()))
    is_whole = np.issubdtype(values.dtype, np.integer)
    return pa.array(values.astype(np.int32 if is_whole else np.float32))
