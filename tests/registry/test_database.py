"""The database: its schema, its migrations, and what it refuses to open."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import sqlalchemy as sa

from kovar.errors import DamagedArtifactError, RegistryError, SettingsError
from kovar.registry import Registry
from kovar.registry.database import Database
from kovar.registry.schema import REVISIONS, VERSION_TABLE
from kovar.settings import load_settings


@pytest.fixture
def settings(tmp_path):
    """SQLite alone: these tests look into its file."""
    return load_settings({"KOVAR_HOME": str(tmp_path / "home")})


def run_sql(settings, statement, parameters=()):
    path = settings.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, parameters).fetchall()


def test_a_new_registry_has_the_last_revision_and_a_write_ahead_log(settings, registry):
    assert run_sql(settings, f"SELECT * FROM {VERSION_TABLE}") == [(REVISIONS[-1],)]  # noqa: S608
    assert run_sql(settings, "PRAGMA journal_mode") == [("wal",)]


def test_a_connection_enforces_foreign_keys_and_syncs(settings):
    with closing(Database(settings.database_url)) as database, database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_alembic_is_not_imported_when_nothing_is_to_migrate(settings, registry):
    code = (
        "import sys; from kovar.registry import Registry; from kovar.settings import Settings\n"
        "Registry.open(Settings.model_validate_json(sys.argv[1])).close()\n"
        "print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", code, settings.model_dump_json()]
    assert subprocess.check_output(command, text=True).strip() == "False"


def test_a_database_of_another_program_is_left_alone(settings, tmp_path):
    (tmp_path / "home").mkdir()
    run_sql(settings, "CREATE TABLE models (id INTEGER)")
    with pytest.raises(RegistryError, match="not a Kovar registry"):
        Registry.open(settings)
    assert run_sql(settings, "SELECT name FROM sqlite_master") == [("models",)]


def test_a_file_that_is_no_database_is_named(settings, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "registry.db").write_text("not a database, for certain " * 100)
    with pytest.raises(RegistryError, match=r"registry\.db failed: file is not a database"):
        Registry.open(settings)


@pytest.mark.parametrize(
    "url", ["mysql://host/name", "nonsense://", "sqlite://", "sqlite:///:memory:"]
)
def test_a_database_that_cannot_hold_a_registry_is_refused(settings, url):
    with pytest.raises(SettingsError, match="sqlite:///path"):
        Registry.open(settings.model_copy(update={"database_url": url}))


def test_a_folder_that_cannot_be_written_is_named(settings, tmp_path):
    (tmp_path / "home").write_text("a file in the way")
    with pytest.raises(SettingsError, match="database_url: cannot write here"):
        Registry.open(settings)


def test_a_failed_transaction_leaves_nothing(settings, registry):
    insert = sa.text("INSERT INTO models VALUES (:id, 'x', 0, '')")

    def insert_twice(database: Database) -> None:
        with database.writing() as connection:
            connection.execute(insert, {"id": 7})
            connection.execute(insert, {"id": 8})

    with (
        closing(Database(settings.database_url)) as database,
        pytest.raises(RegistryError, match="UNIQUE constraint"),
    ):
        insert_twice(database)
    assert run_sql(settings, "SELECT * FROM models") == []


def test_an_altered_manifest_is_found(settings, registry, version):
    run_sql(settings, "UPDATE versions SET manifest = replace(manifest, '0.84', '0.99')")
    with pytest.raises(DamagedArtifactError, match="does not match its digest"):
        registry.resolve("reviews@1")
    with pytest.raises(DamagedArtifactError, match="does not match its digest"):
        registry.version_summaries("reviews")
    (problem,) = registry.verify()
    assert (problem.kind, problem.path, problem.sha256) == ("manifest", "", version.digest)


def test_a_manifest_altered_after_it_was_read_is_found(settings, registry, version):
    assert registry.resolve("reviews@1").manifest is registry.resolve("reviews@1").manifest
    run_sql(settings, "UPDATE versions SET manifest = replace(manifest, '0.84', '0.99')")
    with pytest.raises(DamagedArtifactError, match="does not match its digest"):
        registry.resolve("reviews@1")


@pytest.mark.parametrize("ref", ["1", "champion", "digest"])
def test_a_lookup_scans_no_table(settings, registry, version, ref):
    registry.set_alias("reviews", "champion", 1)
    seen: list[tuple[str, tuple[object, ...]]] = []

    def record(connection, cursor, statement, parameters, context, many):
        seen.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", record)
    registry.version("reviews", version.digest[:9] if ref == "digest" else ref)
    sa.event.remove(sa.Engine, "before_cursor_execute", record)
    queries = [each for each in seen if each[0].startswith("SELECT")]
    assert queries
    for statement, parameters in queries:
        plan = run_sql(settings, f"EXPLAIN QUERY PLAN {statement}", parameters)
        assert not [step for *_, step in plan if step.startswith("SCAN")]
