"""Where the registry, artifacts, runs and caches live, whom it trusts and whom it tells.

Three sources, strongest first: environment variables (`KOVAR_` and the name of the setting in
capitals, for example `KOVAR_DATABASE_URL`), the settings file (`KOVAR_SETTINGS`, else
`$KOVAR_HOME/settings.yaml` if it exists), and defaults under `KOVAR_HOME` (else `~/.kovar`).
In a variable, several keys are separated by colons, several URLs or trackers by spaces.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, cast, get_args

from pydantic import Field

from kovar.config import Config, SizeBytes, load_document, parse_size
from kovar.errors import SettingsError, did_you_mean

SIMULATED: Final = "KOVAR_SIMULATED"
"""Set to 1 by `kovar cluster local`: the CPU stands in for a requested accelerator."""
TrackerName = Literal["mlflow", "wandb"]


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
    cache_max_bytes: int | None = Field(
        default=None, ge=0, description="bound on the cached versions, in bytes; none if absent"
    )
    infeasible_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds after which work is given up that fits no node, "
        "up or still to be added",
    )
    placement_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="seconds that work may wait for nodes in all: until they have booted, "
        "or until other work frees them",
    )
    hang_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="seconds after which a training worker that does not answer is replaced",
    )
    resize_interval_s: float = Field(
        default=60.0,
        gt=0,
        description="seconds between two looks whether more or fewer workers of an elastic run fit",
    )
    checkpoint_mirror: str | None = Field(
        default=None,
        description="folder or URL (s3://, gs://, hdfs://) that checkpoints are copied to",
    )
    signing_key: Path | None = Field(
        default=None, description="private key that signs each version that is registered"
    )
    trusted_keys: tuple[Path, ...] = Field(
        default=(),
        description="public keys, or folders of them; if any, versions signed by none of them "
        "are refused",
    )
    api_keys: Path | None = Field(
        default=None,
        description="file of the API keys of endpoints' callers; if set, others are refused",
    )
    webhook_urls: tuple[str, ...] = Field(
        default=(), description="http(s) URLs that are told of each move of an alias"
    )
    webhook_secret: str | None = Field(
        default=None, repr=False, description="key of the signature in each webhook request"
    )
    trackers: tuple[TrackerName, ...] = Field(
        default=(), description="where the curves of runs go beside TensorBoard: mlflow, wandb"
    )


class _File(Config):
    database_url: str | None = None
    artifact_root: str | None = None
    runs_dir: str | None = None
    cache_dir: str | None = None
    cache_max_bytes: SizeBytes | None = Field(default=None, ge=0)
    infeasible_timeout_s: float = Field(default=30.0, gt=0)
    placement_timeout_s: float = Field(default=600.0, gt=0)
    hang_timeout_s: float = Field(default=120.0, gt=0)
    resize_interval_s: float = Field(default=60.0, gt=0)
    checkpoint_mirror: str | None = None
    signing_key: str | None = None
    trusted_keys: tuple[str, ...] = ()
    api_keys: str | None = None
    webhook_urls: tuple[str, ...] = ()
    webhook_secret: str | None = None
    trackers: tuple[TrackerName, ...] = ()


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Resolve the settings; create nothing.

    Args:
        environ: environment to read; the process's own by default.

    Raises:
        SettingsError: the settings file has a mistake, or an unknown `KOVAR_*` variable is set.
    """
    environ = os.environ if environ is None else environ
    home = _path(environ.get("KOVAR_HOME") or "~/.kovar", field="KOVAR_HOME")
    named = environ.get("KOVAR_SETTINGS")
    path = _path(named, field="KOVAR_SETTINGS") if named else home / "settings.yaml"
    values: dict[str, str] = {
        "database_url": f"sqlite:///{home / 'registry.db'}",
        "artifact_root": str(home / "artifacts"),
        "runs_dir": str(home / "runs"),
        "cache_dir": str(home / "cache"),
    }
    stored = _File()
    if named or path.exists():
        stored = load_document(path, error=SettingsError).parse(_File)
    _refuse_unknown(environ)
    for name in values:
        values[name] = environ.get(f"KOVAR_{name.upper()}") or getattr(stored, name) or values[name]
    if "://" not in values["database_url"]:
        raise SettingsError(
            "not a database URL",
            field="KOVAR_DATABASE_URL",
            got=values["database_url"],
            allowed="sqlite:///path/to/registry.db or postgresql+psycopg://user@host/name",
        )
    if "://" not in values["artifact_root"]:
        values["artifact_root"] = str(_path(values["artifact_root"]))
    mirror = environ.get("KOVAR_CHECKPOINT_MIRROR") or stored.checkpoint_mirror
    signing_key = environ.get("KOVAR_SIGNING_KEY") or stored.signing_key
    api_keys = environ.get("KOVAR_API_KEYS") or stored.api_keys
    keys = [key for key in environ.get("KOVAR_TRUSTED_KEYS", "").split(os.pathsep) if key]
    return Settings(
        database_url=values["database_url"],
        artifact_root=values["artifact_root"],
        runs_dir=_path(values["runs_dir"]),
        cache_dir=_path(values["cache_dir"]),
        cache_max_bytes=_cache_bound(environ, stored),
        infeasible_timeout_s=_seconds(environ, stored, "infeasible_timeout_s"),
        placement_timeout_s=_seconds(environ, stored, "placement_timeout_s"),
        hang_timeout_s=_seconds(environ, stored, "hang_timeout_s"),
        resize_interval_s=_seconds(environ, stored, "resize_interval_s"),
        checkpoint_mirror=str(_path(mirror)) if mirror and "://" not in mirror else mirror,
        signing_key=_path(signing_key) if signing_key else None,
        trusted_keys=tuple(_path(key) for key in keys or stored.trusted_keys),
        api_keys=_path(api_keys) if api_keys else None,
        webhook_urls=tuple(environ.get("KOVAR_WEBHOOK_URLS", "").split() or stored.webhook_urls),
        webhook_secret=environ.get("KOVAR_WEBHOOK_SECRET") or stored.webhook_secret,
        trackers=_trackers(environ.get("KOVAR_TRACKERS", "")) or stored.trackers,
    )


def is_simulated() -> bool:
    """Whether this process belongs to a simulated cluster, which says so in its environment."""
    return os.environ.get(SIMULATED) == "1"


def _trackers(text: str) -> tuple[TrackerName, ...]:
    known = get_args(TrackerName)
    for name in text.split():
        if name not in known:
            raise SettingsError(
                "unknown tracker",
                field="KOVAR_TRACKERS",
                got=name,
                allowed=", ".join(known),
                hint=did_you_mean(name, list(known)),
            )
    return tuple(dict.fromkeys(cast("list[TrackerName]", text.split())))


def _path(text: str, *, field: str = "path") -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as problem:  # ~nobody
        raise SettingsError(f"not a path: {problem}", field=field, got=text) from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """A misspelled variable would silently put a registry where nobody looks for it."""
    known = [
        "KOVAR_HOME",
        "KOVAR_SETTINGS",
        SIMULATED,
        *(f"KOVAR_{f.upper()}" for f in Settings.model_fields),
    ]
    for name in sorted(environ):
        if name.startswith("KOVAR_") and name not in known:
            raise SettingsError(
                "unknown environment variable",
                field=name,
                allowed=", ".join(known),
                hint=did_you_mean(name, known) or f"unset {name}",
            )


def _cache_bound(environ: Mapping[str, str], stored: _File) -> int | None:
    text = environ.get("KOVAR_CACHE_MAX_BYTES")
    if not text:
        return stored.cache_max_bytes
    try:
        return int(text) if text.isdecimal() else int(str(parse_size(text)))
    except ValueError as problem:
        raise SettingsError(str(problem), field="KOVAR_CACHE_MAX_BYTES", got=text) from None


def _seconds(environ: Mapping[str, str], stored: _File, name: str) -> float:
    variable = f"KOVAR_{name.upper()}"
    text = environ.get(variable)
    if not text:
        return float(getattr(stored, name))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise SettingsError("must be a number of seconds above 0", field=variable, got=text)
    return seconds


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
