"""Search over all versions by words, tags and metrics, a page at a time.

Each query walks one index in the order of its results and stops when the page is full: the best
metric first where a metric is asked for, the newest version first elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from kovar.registry.database import Database
from kovar.registry.gates import MetricBound
from kovar.registry.index import words_of
from kovar.registry.queries import VERSIONS, MadeOf, RowT, version_row
from kovar.registry.reference import parse_reference
from kovar.registry.schema import tags, version_metrics, version_words, versions

RARE: Final = 1_000
"""A word of this many versions is common; how common exactly is not counted."""


def search(
    database: Database,
    *,
    made: MadeOf[RowT],
    text: str,
    metrics: Sequence[MetricBound],
    tag_values: Mapping[str, str],
    limit: int,
    before: str | None,
) -> tuple[RowT, ...]:
    """Return the versions that match everything; see `Registry.search`."""
    with database.reading() as connection:
        words = _rarest_first(connection, words_of(text))
        cursor = None
        if before is not None:
            model, _, number = before.partition("@")
            cursor = version_row(connection, model, parse_reference(number), deleted=True).id
        query = page_query(
            words=words,
            metrics=metrics,
            tag_values=tag_values,
            cursor=cursor,
            value=_value(connection, metrics[0], cursor) if metrics and cursor else None,
        )
        return tuple(made(connection, connection.execute(query.limit(limit))))


def page_query(
    *,
    words: Sequence[str],
    metrics: Sequence[MetricBound],
    tag_values: Mapping[str, str],
    cursor: int | None,
    value: float | None,
) -> sa.Select[Any]:
    """Build the query of one page.

    Args:
        words: the rarest first.
        metrics: bounds; the first one orders the results.
        tag_values: key → value.
        cursor: row of the last version of the page before.
        value: its value of the first metric.
    """
    conditions: list[sa.ColumnElement[bool]] = [versions.c.deleted_at.is_(None)]
    conditions += [_has_word(word) for word in words]
    conditions += [_has_tag(key, value) for key, value in tag_values.items()]
    conditions += [_has_metric(bound) for bound in metrics[1:]]
    if metrics:
        return _by_metric(metrics[0], conditions, cursor, value)
    if words:
        del conditions[1]
        walked, start = version_words, [version_words.c.word == words[0]]
    elif tag_values:
        del conditions[1]
        key, wanted = next(iter(tag_values.items()))
        walked, start = tags, [tags.c.key == key, tags.c.value == wanted]
    else:
        newest = VERSIONS.where(*conditions).order_by(versions.c.id.desc())
        return newest if cursor is None else newest.where(versions.c.id < cursor)
    number = walked.c.version_id
    query = VERSIONS.join(walked, number == versions.c.id).where(*start, *conditions)
    query = query.order_by(number.desc())
    return query if cursor is None else query.where(number < cursor)


def _by_metric(
    bound: MetricBound,
    conditions: Sequence[sa.ColumnElement[bool]],
    cursor: int | None,
    value: float | None,
) -> sa.Select[Any]:
    number, found = version_metrics.c.version_id, version_metrics.c.value
    query = VERSIONS.join(version_metrics, number == versions.c.id)
    query = query.where(*_within(bound), *conditions)
    place = sa.tuple_(found, number)
    # The best is the largest, unless only small values are asked for.
    if bound.minimum is not None:
        query = query.order_by(found.desc(), number.desc())
        return query if cursor is None else query.where(place < sa.tuple_(value, cursor))
    query = query.order_by(found, number)
    return query if cursor is None else query.where(place > sa.tuple_(value, cursor))


def _within(bound: MetricBound) -> list[sa.ColumnElement[bool]]:
    conditions = [
        version_metrics.c.dataset == bound.dataset,
        version_metrics.c.metric == bound.metric,
    ]
    if bound.minimum is not None:
        conditions.append(version_metrics.c.value >= bound.minimum)
    if bound.maximum is not None:
        conditions.append(version_metrics.c.value <= bound.maximum)
    return conditions


def _has_word(word: str) -> sa.ColumnElement[bool]:
    here = version_words.c.version_id == versions.c.id
    return sa.exists().where(version_words.c.word == word, here).correlate(versions)


def _has_tag(key: str, value: str) -> sa.ColumnElement[bool]:
    here = tags.c.version_id == versions.c.id
    return sa.exists().where(tags.c.key == key, tags.c.value == value, here).correlate(versions)


def _has_metric(bound: MetricBound) -> sa.ColumnElement[bool]:
    here = version_metrics.c.version_id == versions.c.id
    return sa.exists().where(*_within(bound), here).correlate(versions)


def _rarest_first(connection: sa.Connection, words: set[str]) -> list[str]:
    counts = {}
    for word in words if len(words) > 1 else ():
        some = sa.select(version_words.c.version_id).where(version_words.c.word == word)
        counted = sa.select(sa.func.count()).select_from(some.limit(RARE).subquery())
        counts[word] = connection.execute(counted).scalar_one()
    return sorted(words, key=lambda word: (counts.get(word, 0), word))


def _value(connection: sa.Connection, bound: MetricBound, version_id: int) -> float | None:
    query = sa.select(version_metrics.c.value).where(
        version_metrics.c.version_id == version_id,
        version_metrics.c.dataset == bound.dataset,
        version_metrics.c.metric == bound.metric,
    )
    return connection.execute(query).scalar()
