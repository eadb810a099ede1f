"""Data sets of the Hugging Face hub, through the `datasets` library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from kovar.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_NAME: Final = re.compile(
    r"^(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[\w.-]+))?"
    r"(?:@(?P<revision>[\w./-]+))?(?:#(?P<split>[\w.-]+))?$"
)


def read_hub(name: str, *, label: str, field: str) -> tuple[pa.Table, dict[str, Any]]:
    """Download one split and return it with its facts.

    Args:
        name: `owner/name[/config][@revision][#split]`; the split is `train` when none is named.
        label: the label column: class numbers become the names that the data set declares.
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
    return to_table(dataset, label=label), facts | ({"license": license_} if license_ else {})


def to_table(dataset: Dataset, *, label: str) -> pa.Table:
    """Return the rows as an Arrow table in which class numbers are class names.

    -1, the hub's mark of a row without a label, becomes null.
    """
    from datasets import ClassLabel

    table = dataset.with_format("arrow")[:]
    kind = dataset.features.get(label)
    if not isinstance(kind, ClassLabel):
        return table
    numbers = table.column(label).to_pylist()
    names = [kind.names[n] if n is not None and n >= 0 else None for n in numbers]
    index = table.column_names.index(label)
    return table.set_column(index, label, pa.array(names, pa.string()))
