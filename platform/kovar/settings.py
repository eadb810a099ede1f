"""Where the registry, artifacts, runs and caches live.

Three sources, strongest first: environment variables (`KOVAR_DATABASE_URL`, `KOVAR_ARTIFACT_ROOT`,
`KOVAR_RUNS_DIR`, `KOVAR_CACHE_DIR`), the settings file (`KOVAR_SETTINGS`, else
`$KOVAR_HOME/settings.yaml` if it exists), and defaults under `KOVAR_HOME` (else `~/.kovar`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from kovar.config import Config, load_document
from kovar.errors import SettingsError, did_you_mean


class Settings(Config):
    """One resolved set of places."""

    database_url: str = Field(description="SQLAlchemy URL of the registry's metadata")
    artifact_root: str = Field(
        description="folder or URL (s3://, gs://, hdfs://) of the content-addressed artifacts"
    )
    runs_dir: Path = Field(description="folder with one folder per run; shared by all nodes")
    cache_dir: Path = Field(
        description="folder of rebuildable files: packages, tokenized data; shared by all nodes"
    )


class _File(Config):
    database_url: str | None = None
    artifact_root: str | None = None
    runs_dir: str | None = None
    cache_dir: str | None = None


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Resolve the settings; create nothing.

    Args:
        environ: environment to read; the process's own by default.

    Raises:
        SettingsError: the settings file has a mistake, or an unknown `KOVAR_*` variable is set.
    """
    environ = os.environ if environ is None else environ
    home = Path(environ.get("KOVAR_HOME") or Path.home() / ".kovar").expanduser().absolute()
    named = environ.get("KOVAR_SETTINGS")
    path = Path(named).expanduser() if named else home / "settings.yaml"
    values: dict[str, str] = {
        "database_url": f"sqlite:///{home / 'registry.db'}",
        "artifact_root": str(home / "artifacts"),
        "runs_dir": str(home / "runs"),
        "cache_dir": str(home / "cache"),
    }
    if named or path.exists():
        stored = load_document(path, error=SettingsError).parse(_File)
        values |= stored.model_dump(exclude_none=True)
    _refuse_unknown(environ)
    for name in values:
        values[name] = environ.get(f"KOVAR_{name.upper()}") or values[name]
    if "://" not in values["database_url"]:
        raise SettingsError(
            "not a database URL",
            field="KOVAR_DATABASE_URL",
            got=values["database_url"],
            allowed="sqlite:///path/to/registry.db or postgresql+psycopg://user@host/name",
        )
    if "://" not in values["artifact_root"]:
        values["artifact_root"] = str(Path(values["artifact_root"]).expanduser().absolute())
    return Settings(
        database_url=values["database_url"],
        artifact_root=values["artifact_root"],
        runs_dir=Path(values["runs_dir"]).expanduser().absolute(),
        cache_dir=Path(values["cache_dir"]).expanduser().absolute(),
    )


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """A misspelled variable would silently put a registry where nobody looks for it."""
    known = ["KOVAR_HOME", "KOVAR_SETTINGS", *(f"KOVAR_{f.upper()}" for f in Settings.model_fields)]
    for name in sorted(environ):
        if name.startswith("KOVAR_") and name not in known:
            raise SettingsError(
                "unknown environment variable",
                field=name,
                allowed=", ".join(known),
                hint=did_you_mean(name, known) or f"unset {name}",
            )


def ensure_writable(folder: Path, *, field: str) -> Path:
    """Create a folder and prove that files can be written there.

    Raises:
        SettingsError: naming the folder and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another thread may share the name
    except OSError as problem:
        raise SettingsError(
            f"cannot write here: {problem.strerror}",
            field=field,
            got=str(folder),
            hint=f"set KOVAR_{field.upper()} (or KOVAR_HOME) to a folder that you may write to",
        ) from None
    return folder
