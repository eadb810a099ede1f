"""Data sets of the Hugging Face hub, through the `datasets` library."""

from __future__ import annotations

import re
from typing import Any, Final

import pyarrow as pa

from kovar.errors import DataError

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
    from datasets import ClassLabel, load_dataset

    try:
        # Without remote code: the library refuses data sets that are scripts.
        dataset = load_dataset(
            match["id"], match["config"], split=split, revision=match["revision"]
        )
    except Exception as problem:
        raise DataError(
            f"the hub data set cannot be loaded: {type(problem).__name__}",
            field=field,
            got=f"hub:{name}",
            allowed=str(problem).splitlines()[0] if str(problem) else None,
            hint="check the name, the network and HF_TOKEN; or save the data as a local Parquet "
            "file and name that file in data.source",
        ) from problem
    table = dataset.with_format("arrow")[:]
    kind = dataset.features.get(label)
    if isinstance(kind, ClassLabel):
        numbers = table.column(label)
        # -1 is the hub's mark of a row without a label.
        names = [kind.names[n] if n is not None and n >= 0 else None for n in numbers.to_pylist()]
        index = table.column_names.index(label)
        table = table.set_column(index, label, pa.array(names, pa.string()))
    facts = {"hub": match["id"], "revision": match["revision"] or "main", "split": split}
    license_ = dataset.info.license
    return table, facts | ({"license": license_} if license_ else {})
