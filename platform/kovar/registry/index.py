"""What the database indexes of a version: its parents, metrics, words and blobs.

All of it follows from the manifest and the tags, so it can be computed again. A change here needs
a migration that does so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import sqlalchemy as sa

from kovar.registry.metrics import numbers_of
from kovar.registry.schema import blob_uses, parents, version_metrics, version_words

MAX_NAME_CHARS: Final = 256
MAX_WORD_CHARS: Final = 64

_WORD = re.compile(r"\w+")


def words_of(text: str) -> set[str]:
    """Split text into the words that search compares: lowercase letters and digits."""
    found = _WORD.findall(text.replace("_", " ").casefold())
    return {word[:MAX_WORD_CHARS] for word in found}


def index_version(
    connection: sa.Connection,
    version_id: int,
    manifest: Mapping[str, Any],
    *,
    model: str,
    run: str | None,
    sweep: str | None,
    tags: Mapping[str, str],
) -> None:
    """Write the rows of one version.

    Args:
        connection: of a transaction that writes.
        version_id: the version's row.
        manifest: the version's, as JSON.
        model: name of the model.
        run: id of the run that made it.
        sweep: id of the sweep.
        tags: the version's.
    """
    metrics = {
        (dataset[:MAX_NAME_CHARS], metric[:MAX_NAME_CHARS]): value
        for dataset, values in manifest["metrics"].items()
        for metric, value in numbers_of(values)
    }
    texts = [model, run or "", sweep or "", *tags.keys(), *tags.values(), *_texts(manifest)]
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        parents: [
            {"digest": digest, "role": role}
            for digest, role in sorted(
                {(each["digest"], each["role"]) for each in manifest.get("parents", [])}
            )
        ],
        version_metrics: [
            {"dataset": dataset, "metric": metric, "value": value}
            for (dataset, metric), value in metrics.items()
        ],
        version_words: [{"word": word} for word in sorted(set().union(*map(words_of, texts)))],
    }
    for table, values in rows.items():
        if values:
            each_row = [{"version_id": version_id, **value} for value in values]
            connection.execute(table.insert(), each_row)
    use_blobs(connection, version_id, {each["sha256"] for each in manifest["files"]})


def use_blobs(connection: sa.Connection, version_id: int, digests: set[str]) -> None:
    """Note that a version needs these blobs; those that it needs already are left alone."""
    known = sa.select(blob_uses.c.sha256).where(
        blob_uses.c.version_id == version_id, blob_uses.c.sha256.in_(digests)
    )
    fresh = digests - set(connection.execute(known).scalars())
    if fresh:
        rows = [{"sha256": digest, "version_id": version_id} for digest in sorted(fresh)]
        connection.execute(blob_uses.insert(), rows)


def _texts(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield manifest["method"]
    yield manifest["precision"]
    yield manifest["signature"]["task"]
    yield manifest.get("intended_use", "")
    for part in ("base_model", "data"):
        if facts := manifest.get(part):
            yield facts["source"]
