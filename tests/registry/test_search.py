"""Pages of versions and models, search, and the query plans behind them."""

import pytest
import sqlalchemy as sa

from kovar.errors import NotFoundError
from kovar.registry import MetricBound

GOOD = MetricBound(metric="accuracy", minimum=0.5)


@pytest.fixture
def many(registry, folder, facts):
    """Nine versions of three models; accuracy 0.1 to 0.9, one tag, two runs."""
    for number in range(9):
        changed = {
            "seed": number,
            "metrics": {"evaluation": {"accuracy": (number + 1) / 10}},
            "intended_use": "Ranking cheap reviews." if number % 2 else "",
        }
        registry.register(
            f"movie-{'abc'[number % 3]}",
            folder,
            facts=facts.model_copy(update=changed),
            run=f"run-{number % 2}",
            tags={"team": "search" if number < 6 else "ads"},
        )
    return registry


def names(found) -> list[str]:
    return [str(version) for version in found]


def test_versions_come_in_pages_newest_first(many):
    assert names(many.versions("movie-a", limit=2)) == ["movie-a@3", "movie-a@2"]
    assert names(many.versions("movie-a", limit=2, before=2)) == ["movie-a@1"]
    assert many.versions("movie-a", before=1) == ()


def test_summaries_are_the_same_pages_as_whole_versions(many):
    whole, rows = many.versions("movie-a", limit=2), many.version_summaries("movie-a", limit=2)
    assert [(row.digest, dict(row.tags), row.created_at, row.run) for row in rows] == [
        (version.digest, dict(version.tags), version.created_at, version.run) for version in whole
    ]
    assert [row.metrics for row in rows] == [version.manifest.metrics for version in whole]
    assert names(many.version_summaries("movie-a", before=2)) == ["movie-a@1"]
    query = {"text": "movie", "metrics": [GOOD], "tags": {"team": "search"}}
    assert names(many.search_summaries(**query)) == names(many.search(**query)) != []


def test_models_come_in_pages_by_name(many):
    assert [model.name for model in many.models(limit=2)] == ["movie-a", "movie-b"]
    assert [model.name for model in many.models(limit=2, after="movie-b")] == ["movie-c"]


@pytest.mark.parametrize(
    "query",
    [
        {"text": "movie"},
        {"text": "Movie CHEAP"},
        {"tags": {"team": "search"}},
        {"text": "b", "tags": {"team": "search"}, "metrics": [GOOD]},
        {"metrics": [GOOD]},
        {"metrics": [MetricBound(metric="accuracy", maximum=0.7)]},
        {},
    ],
)
def test_the_pages_of_a_search_are_the_search(many, query):
    everything = names(many.search(**query))
    pages, before = [], None
    while page := names(many.search(**query, limit=2, before=before)):
        pages += page
        before = page[-1]
    assert pages == everything
    assert len(set(pages)) == len(pages) > 0


def test_search_finds_words_tags_runs_and_metrics(many):
    assert names(many.search("movie-b")) == ["movie-b@3", "movie-b@2", "movie-b@1"]
    assert names(many.search("run-1", tags={"team": "ads"})) == ["movie-b@3"]
    assert names(many.search(metrics=[GOOD], limit=2)) == ["movie-c@3", "movie-b@3"]
    low = MetricBound(metric="accuracy", maximum=0.2)
    assert names(many.search(metrics=[low])) == ["movie-a@1", "movie-b@1"]
    assert many.search("nothing") == ()


def test_a_page_after_an_unknown_version_is_refused(many):
    with pytest.raises(NotFoundError, match="no version"):
        many.search(before="movie-a@99")


CALLS = {
    "models": lambda registry: registry.models(limit=2, after="movie-a"),
    "versions": lambda registry: registry.versions("movie-a", limit=2, before=3),
    "alias": lambda registry: registry.version("movie-a", "champion"),
    "words": lambda registry: registry.search("movie cheap", before="movie-a@3"),
    "tags": lambda registry: registry.search(tags={"team": "ads"}, before="movie-a@3"),
    "metrics": lambda registry: registry.search(metrics=[GOOD], before="movie-a@3"),
    "newest": lambda registry: registry.search(before="movie-a@3"),
    "summaries": lambda registry: registry.version_summaries("movie-a", limit=2, before=3),
    "newest first page": lambda registry: registry.search(),
    "lineage": lambda registry: registry.lineage(registry.version("movie-a", 1)),
    "history": lambda registry: registry.history("movie-a", "champion"),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_question_scans_a_table(many, call):
    many.set_alias("movie-a", "champion", 1)
    database, seen = many._database, []
    explain, scan = "EXPLAIN QUERY PLAN", "SCAN"
    if database.dialect == "postgresql":
        explain, scan = "EXPLAIN", "Seq Scan"

    def record(connection, cursor, statement, parameters, context, many):
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    try:
        CALLS[call](many)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", record)
    assert seen
    with database.reading() as connection:
        if database.dialect == "postgresql":
            # It prefers a scan of few rows; forbidden, it scans only where no index fits.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in seen:
            plan = [
                str(row[-1])
                for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)
            ]
            # A scan along an index ends with the page; that of a subquery has its own limit.
            scans = [step for step in plan if scan in step and "USING INDEX" not in step]
            assert not [step for step in scans if "anon_1" not in step], plan
            sorts = [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step]
            assert not sorts or call in ("models", "lineage"), plan
