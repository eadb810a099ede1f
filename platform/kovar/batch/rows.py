"""The labeled rows of an evaluation, with the columns that divide them into slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.batch.spec import EvaluateData
from kovar.data.progress import Progress
from kovar.errors import DataError
from kovar.registry import Version, rows_digest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class LabeledRows:
    """What a version is evaluated on.

    Args:
        texts: inputs, shape [rows].
        true: label index per row, shape [rows], in the order of the version's labels.
        columns: name of a further column → its value per row.
        digest: of the rows, as `kovar.registry.rows_digest` computes it.
        facts: where they came from, for the record.
    """

    texts: list[str]
    true: npt.NDArray[np.int64]
    columns: dict[str, list[Any]]
    digest: str
    facts: dict[str, Any]


def read_rows(
    data: EvaluateData,
    version: Version,
    *,
    columns: tuple[str, ...],
    cache_dir: Path,
    base_dir: Path,
    progress: Progress | None = None,
) -> LabeledRows:
    """Read the rows, and hold their labels against those of the version.

    Args:
        data: the rows that are wanted.
        version: what is evaluated.
        columns: further columns.
        cache_dir: where packages are kept.
        base_dir: folder that relative paths start from.
        progress: told about downloads.

    Raises:
        DataError: as `kovar.data.load_table`; or a label that the version does not know.
    """
    import numpy as np

    from kovar.data import load_table
    from kovar.data.dataset import held_out_rows

    spec = data.to_data_spec()
    source = load_table(
        spec,
        cache_dir=cache_dir,
        base_dir=base_dir,
        progress=progress,
        min_labels=1,
        columns=columns,
        columns_field="slices.columns",
    )
    table = source.table
    if data.split == "evaluation":
        table = table.take(held_out_rows(spec, source))
    labels = version.manifest.signature.labels
    names = table.column("label").to_pylist()
    _check_labels(names, labels, data)
    index = {label: number for number, label in enumerate(labels)}
    texts = table.column("text").to_pylist()
    facts = {**source.description, "split": data.split, "evaluated_rows": table.num_rows}
    if data.split == "evaluation":
        facts |= {"evaluation": data.evaluation, "split_seed": data.split_seed}
    return LabeledRows(
        texts=texts,
        true=np.array([index[name] for name in names], dtype=np.int64),
        columns={name: table.column(name).to_pylist() for name in columns},
        digest=rows_digest(zip(texts, names, strict=True)),
        facts=facts,
    )


def _check_labels(names: list[str], labels: tuple[str, ...], data: EvaluateData) -> None:
    unknown = sorted(set(names) - set(labels))
    if unknown:
        raise DataError(
            f"the version does not know the label {unknown[0]!r}",
            field="data.label",
            got=", ".join(unknown[:5]),
            allowed=", ".join(labels),
            hint=f"map the labels of {data.source} to those that the version was trained on",
        )


def trained_on(version: Version, rows: LabeledRows) -> bool:
    """Return whether a version was trained on some of these rows, as far as it is recorded."""
    made_of = version.manifest.data
    if made_of is None:
        return False
    same = made_of.details.get("content_sha256") == rows.facts["content_sha256"]
    held_out = (
        rows.facts["split"] == "evaluation"
        and rows.facts["evaluated_rows"] == made_of.split.num_evaluation
        and rows.facts["split_seed"] == made_of.split.seed
    )
    return same and not held_out
