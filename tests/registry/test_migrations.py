"""From every earlier schema to the last, with data in it, on both kinds of database."""

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import kovar.registry
from kovar.errors import NewerSchemaError
from kovar.registry import Manifest, MetricBound, Parent, Registry
from kovar.registry.schema import REVISIONS, VERSION_TABLE, metadata
from kovar.settings import load_settings

NOW = "2026-05-03T10:00:00.000000Z"


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request, tmp_path):
    """Places whose database is empty."""
    environ = {"KOVAR_HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    if request.param == "postgresql":
        environ["KOVAR_DATABASE_URL"] = request.getfixturevalue("postgres").create_database()
    return load_settings(environ)


@pytest.fixture
def engine(settings):
    engine = sa.create_engine(settings.database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def manifests(settings, folder, facts):
    """A parent and its child; their blobs are stored by a registry elsewhere."""
    elsewhere = {"database_url": f"sqlite:///{settings.cache_dir}-other.db"}
    with Registry.open(settings.model_copy(update=elsewhere)) as registry:
        base = registry.register("reviews", folder, facts=facts).manifest
    child = {"parents": (Parent(role="base", digest=base.digest),), "seed": 7}
    return [base, base.model_copy(update=child)]


def upgrade(engine: sa.Engine, revision: str) -> None:
    config = Config()
    folder = Path(kovar.registry.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def fill_first_schema(engine: sa.Engine, manifests: list[Manifest]) -> None:
    rows = [
        (
            "INSERT INTO models (name, last_number, created_at) VALUES ('reviews', 2, :now)",
            {"now": NOW},
        ),
        *(
            (
                "INSERT INTO versions (model_id, number, digest, manifest, run_facts, "
                "created_at, created_by, run) "
                "VALUES (1, :n, :digest, :manifest, '{}', :now, 'ada', :run)",
                {
                    "n": number,
                    "digest": manifest.digest,
                    "manifest": manifest.to_bytes().decode(),
                    "now": NOW,
                    "run": f"run-{number}",
                },
            )
            for number, manifest in enumerate(manifests, start=1)
        ),
        ("INSERT INTO tags VALUES (2, 'team', 'search')", {}),
        ("INSERT INTO aliases VALUES (1, 'champion', 2)", {}),
        (
            "INSERT INTO alias_history (model_id, alias, sequence, moved_at, moved_by, "
            "from_version_id, to_version_id, reason, forced) "
            "VALUES (1, 'champion', 1, :now, 'ada', NULL, 2, 'first', :no)",
            {"now": NOW, "no": False},
        ),
    ]
    with engine.begin() as connection:
        for statement, values in rows:
            connection.execute(sa.text(statement), values)


@pytest.fixture(params=REVISIONS[:-1])
def old(request, engine, manifests) -> list[Manifest]:
    upgrade(engine, REVISIONS[0])
    fill_first_schema(engine, manifests)
    upgrade(engine, request.param)
    return manifests


def test_versions_aliases_and_history_survive(settings, old):
    with Registry.open(settings) as registry:
        base, child = registry.version("reviews", 1), registry.resolve("reviews")
        (move,) = registry.history("reviews", "champion")
        assert registry.verify() == []
    assert [base.manifest, child.manifest] == old
    assert (child.run, child.tags) == ("run-2", {"team": "search"})
    assert (move.to_number, move.moved_by, move.reason, move.action) == (2, "ada", "first", "move")


def test_what_was_there_before_is_found_by_search_and_lineage(settings, old):
    good = MetricBound(metric="accuracy", minimum=0.8)
    with Registry.open(settings) as registry:
        assert [each.number for each in registry.search("RUN-2 reviews")] == [2]
        assert [each.number for each in registry.search(tags={"team": "search"})] == [2]
        assert len(registry.search(metrics=[good])) == 2
        (edge,) = registry.lineage(registry.version("reviews", 1)).edges
    assert (edge.parent, edge.child) == (old[0].digest, old[1].digest)


def test_no_blob_of_an_old_version_is_garbage(settings, old):
    with Registry.open(settings) as registry:
        assert registry.collect_garbage(grace=timedelta(0)).swept == ()
        assert registry.verify() == []


def test_a_migrated_registry_can_be_written(settings, old, folder, facts):
    with Registry.open(settings) as registry:
        third = registry.register("reviews", folder, facts=facts.model_copy(update={"seed": 9}))
        registry.promote("reviews", to=3, expected=2, reason="better")
        assert registry.resolve("reviews") == third
        assert registry.rollback("reviews", reason="worse after all").to_number == 2


def test_the_migrations_make_the_tables_that_the_code_uses(settings, engine):
    Registry.open(settings).close()
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_a_newer_schema_is_refused_and_left_alone(settings, engine):
    Registry.open(settings).close()
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '0099'"))  # noqa: S608
    with pytest.raises(NewerSchemaError, match=r"schema 0099; .* up to \d+\n.*upgrade Kovar"):
        Registry.open(settings)
    with engine.connect() as connection:
        found = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
        assert found.scalars().all() == ["0099"]
