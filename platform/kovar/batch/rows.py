"""The labeled rows of an evaluation, with the columns that divide them into slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovar.batch.kinds import check_labels, check_pair, kind_of
from kovar.batch.spec import EvaluateData
from kovar.data.progress import Progress
from kovar.registry import Version, rows_digest


@dataclass(frozen=True)
class LabeledRows:
    """What a version is evaluated on.

    Args:
        contents: what the runtime reads of each row: a text, a pair of them, or words.
        names: what is true of each row: the name of a label, or a list of names.
        columns: name of a further column → its value per row.
        digest: of the rows, as `kovar.registry.rows_digest` computes it.
        facts: where they came from, for the record.
    """

    contents: list[Any]
    names: list[Any]
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
        SpecError: the version's task cannot be evaluated, or reads no second texts.
    """
    from kovar.data import load_table
    from kovar.data.dataset import held_out_rows

    spec, kind = data.to_data_spec(), kind_of(version)
    check_pair(version, data.text_pair, field="data.text_pair")
    source = load_table(
        spec,
        layout=kind.layout,
        cache_dir=cache_dir,
        base_dir=base_dir,
        progress=progress,
        min_labels=1,
        columns=columns,
        columns_field="slices.columns",
    )
    table = source.table
    if data.split == "evaluation":
        table = table.take(held_out_rows(spec, source, layout=kind.layout))
    contents, names = kind.contents(table), kind.names(table)
    check_labels(kind, names, version, source=data.source)
    facts = {**source.description, "split": data.split, "evaluated_rows": table.num_rows}
    if data.split == "evaluation":
        facts |= {"evaluation": data.evaluation, "split_seed": data.split_seed}
    return LabeledRows(
        contents=contents,
        names=names,
        columns={name: table.column(name).to_pylist() for name in columns},
        digest=rows_digest(zip(contents, names, strict=True)),
        facts=facts,
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
