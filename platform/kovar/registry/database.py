"""The registry's database: SQLite on one machine, PostgreSQL for a cluster, through the same code.

Writers lock before they read what they decide on: `BEGIN IMMEDIATE` on SQLite, rows on PostgreSQL
(`Catalog` selects them for update). A write that decides on an unlocked read loses updates.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from kovar.errors import MissingExtraError, NewerSchemaError, RegistryError, SettingsError
from kovar.registry.schema import REVISIONS, VERSION_TABLE, metadata
from kovar.settings import ensure_writable

LOCK_TIMEOUT_S: Final = 30
CONNECT_TIMEOUT_S: Final = 10
CACHE_KIB: Final = 65_536
_ALLOWED: Final = "sqlite:///path/to/registry.db or postgresql+psycopg://user@host/name"
_MIGRATION_LOCK: Final = 0x6B6F766172  # "kovar", as the key of a PostgreSQL advisory lock
_BLOB_LOCK: Final = _MIGRATION_LOCK + 1


class Database:
    """A connection pool to a database of the right schema; created or migrated when needed.

    Args:
        url: SQLAlchemy URL.

    Raises:
        SettingsError: the URL is malformed, its driver is missing, or its folder is not writable.
        NewerSchemaError: a newer Kovar wrote the database.
        RegistryError: it cannot be reached, or holds something else.
    """

    def __init__(self, url: str) -> None:
        self._engine = _create_engine(url)
        self._writer = self._engine.execution_options(writes=True)
        # SQLite reads one consistent state anyway.
        self._reader = (
            self._engine.execution_options(isolation_level="REPEATABLE READ")
            if self._engine.dialect.name == "postgresql"
            else self._engine
        )
        self.url = self._engine.url.render_as_string(hide_password=True)
        self.dialect = self._engine.dialect.name
        # Connections close when the last reference goes, also where nobody called close().
        weakref.finalize(self, self._engine.dispose)
        self._ensure_schema()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads: one consistent state."""
        with self._translated(), self._reader.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that writes; it commits on leaving and rolls back on an error."""
        with self._translated(), self._writer.begin() as connection:
            yield connection

    def keep_blobs(self, connection: sa.Connection) -> None:
        """Let no blob be swept until this writing transaction ends.

        Many may keep at once; SQLite has one writer at a time anyway.
        """
        if self.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_BLOB_LOCK)))

    def sweep_blobs(self, connection: sa.Connection) -> None:
        """Let no version be committed until this writing transaction ends."""
        if self.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_BLOB_LOCK)))

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeoutError) as problem:
            cause = problem.orig if isinstance(problem, DBAPIError) else problem
            raise RegistryError(
                f"the registry's database {self.url} failed: {str(cause).splitlines()[0]}",
                hint="check that it is reachable and has space; look what it holds before you "
                "repeat a change",
            ) from problem

    def _ensure_schema(self) -> None:
        with self.reading() as connection:
            found = self._revision(connection)
        if found == REVISIONS[-1]:
            return
        if found is not None and found not in REVISIONS:
            raise NewerSchemaError(
                f"the registry {self.url} has schema {found}; this Kovar supports up to "
                f"{REVISIONS[-1]}",
                hint="upgrade Kovar (pip install --upgrade kovar-platform), or set "
                "KOVAR_DATABASE_URL to another registry",
                found=found,
                supported=REVISIONS[-1],
            )
        with self._sole_migrator(), self.writing() as connection:
            if self.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            _migrate(connection)

    def _revision(self, connection: sa.Connection) -> str | None:
        tables = set(sa.inspect(connection).get_table_names())
        if VERSION_TABLE in tables:
            revision = sa.column("version_num", sa.String)
            query = sa.select(revision).select_from(sa.table(VERSION_TABLE))
            return connection.execute(query).scalar()
        if foreign := sorted(tables & metadata.tables.keys()):
            raise RegistryError(
                f"{self.url} is not a Kovar registry: it has a table {foreign[0]!r} of other use",
                hint="set KOVAR_DATABASE_URL to a database of its own",
            )
        return None

    @contextlib.contextmanager
    def _sole_migrator(self) -> Iterator[None]:
        """Switch SQLite to write-ahead logging; two processes cannot do that at once."""
        if self.dialect != "sqlite":
            yield
            return
        from filelock import FileLock

        with FileLock(f"{self._engine.url.database}.lock"):
            with self._translated(), contextlib.closing(self._engine.raw_connection()) as raw:
                raw.cursor().execute("PRAGMA journal_mode=WAL")
            yield


def _create_engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise ArgumentError(f"{backend} is not supported")
        if backend == "sqlite":
            return _create_sqlite(parsed)
        return _create_postgresql(parsed)
    except (ArgumentError, NoSuchModuleError) as problem:
        raise SettingsError(
            f"not a usable database URL: {problem}", field="database_url", allowed=_ALLOWED
        ) from None
    except ModuleNotFoundError:
        raise MissingExtraError.of("postgres", needed_for="a registry in PostgreSQL") from None


def _create_postgresql(url: sa.URL) -> sa.Engine:
    # A frozen client must not hold its locks for ever, nor another one wait for them for ever.
    limits = f"-c lock_timeout={LOCK_TIMEOUT_S}s -c idle_in_transaction_session_timeout=60s"
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "options": limits},
    )


def _create_sqlite(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise ArgumentError("a registry in memory would be lost with the process")
    path = Path(url.database)
    if not path.exists():
        ensure_writable(path.absolute().parent, field="database_url")
    engine = sa.create_engine(url, connect_args={"timeout": LOCK_TIMEOUT_S})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: object) -> None:
        # Python's driver must not begin transactions by itself: the listener below does.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        # The default of 2 MB holds a few hundred manifests.
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _migrate(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    # Alembic's options interpolate %.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
