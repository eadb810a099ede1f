"""Data sets of the Hugging Face hub, through the `datasets` library."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from kovar.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_NAME: Final = re.compile(
    r"^(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[\w.-]+))?"
    r"(?:@(?P<revision>[\w./-]+))?(?:#(?P<split>[\w.-]+))?$"
)


def read_hub(name: str, *, classes: Iterable[str], field: str) -> tuple[pa.Table, dict[str, Any]]:
    """Download one split and return it with its facts.

    Args:
        name: `owner/name[/config][@revision][#split]`; the split is `train` when none is named.
        classes: columns whose class numbers become the names that the data set declares.
        field: the field of the specification that named it, for messages.

    Raises:
        DataError: the name has another form, or the hub cannot be reached or has no such data set.
    """
    match = _NAME.match(name)
    if match is None:
        raise DataError(
            "not the name of a hub data set",
            field=field,
            got=f"hub:{name}",
            allowed="hub:owner/name, then optionally /config, @revision, #split",
        )
    split = match["split"] or "train"
    from datasets import load_dataset

    try:
        # Without remote code: the library refuses data sets that are scripts.
        dataset = load_dataset(
            match["id"], match["config"], split=split, revision=match["revision"]
        )
    except Exception as problem:
        cause = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise DataError(
            f"the hub data set cannot be loaded: {cause}",
            field=field,
            got=f"hub:{name}",
            hint="check the name, the network and HF_TOKEN; or save the data as a local Parquet "
            "file and name that file in data.source",
        ) from problem
    facts = {"hub": match["id"], "revision": match["revision"] or "main", "split": split}
    license_ = dataset.info.license
    return to_table(dataset, classes=classes), facts | ({"license": license_} if license_ else {})


def to_table(dataset: Dataset, *, classes: Iterable[str]) -> pa.Table:
    """Return the rows as an Arrow table in which class numbers, alone or in lists, are names.

    -1, the hub's mark of a row without a label, becomes null.
    """
    from datasets import ClassLabel

    table = dataset.with_format("arrow")[:]
    for column in classes:
        kind = dataset.features.get(column)
        listed = getattr(kind, "feature", None)
        declared = listed if isinstance(listed, ClassLabel) else kind
        if not isinstance(declared, ClassLabel):
            continue
        names = declared.names
        numbers = table.column(column).to_pylist()
        if declared is listed:
            of_rows = [None if row is None else [_name(n, names) for n in row] for row in numbers]
            values = pa.array(of_rows, pa.list_(pa.string()))
        else:
            values = pa.array([_name(n, names) for n in numbers], pa.string())
        table = table.set_column(table.column_names.index(column), column, values)
    return table


def _name(number: int | None, names: list[str]) -> str | None:
    return names[number] if number is not None and number >= 0 else None
