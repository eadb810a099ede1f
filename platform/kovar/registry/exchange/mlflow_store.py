"""Versions to and from MLflow's model registry. Needs the extra `mlflow`.

Kovar's manifest travels among the artifacts, so a version comes back from MLflow as itself.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from kovar.errors import MissingExtraError, NotFoundError, RegistryError, UserError
from kovar.registry.exchange.envelope import MANIFEST_FILE
from kovar.registry.exchange.folder import export_folder, import_folder
from kovar.registry.registry import Progress, Registry
from kovar.registry.version import Version

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT: Final = "kovar"
ARTIFACT_FOLDER: Final = "model"
_MAX_PARAMETER_CHARS: Final = 6000


@dataclass(frozen=True)
class MlflowVersion:
    """A version in MLflow's registry."""

    name: str
    number: str
    run_id: str

    @property
    def uri(self) -> str:
        """What MLflow and `import_mlflow` call it."""
        return f"models:/{self.name}/{self.number}"


def export_mlflow(registry: Registry, version: Version, tracking_uri: str) -> MlflowVersion:
    """Log a version as a run of MLflow and register it there under its model's name.

    The run holds the spec as parameters, the metrics, and the files as `model/` with an `MLmodel`
    of the flavor `kovar`. A version that is there already is returned.

    Args:
        registry: where the version is.
        version: the version.
        tracking_uri: MLflow's, for example `sqlite:////data/mlflow.db` or `http://host:5000`.

    Raises:
        MissingExtraError: MLflow is not installed.
        RegistryError: MLflow refused or cannot be reached.
    """
    with _client(tracking_uri) as client, tempfile.TemporaryDirectory() as temporary:
        if existing := _find(client, version):
            return existing
        folder = export_folder(registry, version, Path(temporary) / ARTIFACT_FOLDER)
        experiment = _experiment(client, tracking_uri)
        run = client.create_run(experiment, run_name=str(version), tags=_tags(version))
        run_id: str = run.info.run_id
        _log_facts(client, run_id, version)
        _write_mlmodel(folder, version, run_id)
        client.log_artifacts(run_id, str(folder), ARTIFACT_FOLDER)
        client.set_terminated(run_id)
        _ensure_model(client, version.model)
        made = client.create_model_version(
            version.model,
            source=f"{run.info.artifact_uri}/{ARTIFACT_FOLDER}",
            run_id=run_id,
            tags=_tags(version),
        )
        return MlflowVersion(version.model, str(made.version), run_id)


def import_mlflow(
    registry: Registry,
    uri: str,
    tracking_uri: str,
    *,
    model: str | None = None,
    progress: Progress | None = None,
) -> Version:
    """Register a version of MLflow's registry.

    One that Kovar exported comes back with its digest. Another one is registered from its files,
    if they are a Hugging Face folder or what MLflow's `transformers` flavor writes.

    Args:
        registry: where to.
        uri: `models:/name/number` or `models:/name@alias`.
        tracking_uri: MLflow's.
        model: name of the model; MLflow's by default.
        progress: told of the bytes stored.

    Raises:
        MissingExtraError: MLflow is not installed.
        NotFoundError: no such version.
        DamagedArtifactError: a file was altered.
        UnsafeArtifactError: a file that may not enter the registry, for example a pickle.
    """
    with _client(tracking_uri) as client, tempfile.TemporaryDirectory() as temporary:
        from mlflow.artifacts import download_artifacts

        name, source = _source_of(client, uri)
        target = Path(temporary) / "download"
        target.mkdir()
        folder = Path(
            download_artifacts(artifact_uri=source, dst_path=str(target), tracking_uri=tracking_uri)
        )
        (folder / "MLmodel").unlink(missing_ok=True)
        if (folder / MANIFEST_FILE).exists():
            return import_folder(registry, folder, model=model, progress=progress)
        flat = _flattened(folder, Path(temporary) / "flat")
        return import_folder(registry, flat, model=model or name, progress=progress)


@contextmanager
def _client(tracking_uri: str) -> Iterator[MlflowClient]:
    """Give a client; turn MLflow's errors into Kovar's."""
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise MissingExtraError.of("mlflow", needed_for="exchange with MLflow") from None
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    # A client is not enough: parts of MLflow open the default store, and make one in the working
    # folder if there is none.
    mlflow.set_tracking_uri(tracking_uri)
    try:
        yield mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    except MlflowException as problem:
        text = str(problem).splitlines()[0]
        if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFoundError(f"MLflow: {text}", got=tracking_uri) from None
        raise RegistryError(
            f"MLflow at {tracking_uri}: {text}", hint="check the address and MLflow's own log"
        ) from None
    finally:
        mlflow.set_tracking_uri(before)


def _find(client: MlflowClient, version: Version) -> MlflowVersion | None:
    found = client.search_model_versions(f"name = '{version.model}'")
    for each in found:
        if each.tags.get("kovar.digest") == version.digest:
            return MlflowVersion(version.model, str(each.version), str(each.run_id))
    return None


def _experiment(client: MlflowClient, tracking_uri: str) -> str:
    from mlflow.exceptions import MlflowException

    existing = client.get_experiment_by_name(EXPERIMENT)
    if existing is not None:
        return str(existing.experiment_id)
    try:
        return str(client.create_experiment(EXPERIMENT, _artifact_location(tracking_uri)))
    except MlflowException:  # another process has made it meanwhile
        existing = client.get_experiment_by_name(EXPERIMENT)
        if existing is None:
            raise
        return str(existing.experiment_id)


def _artifact_location(tracking_uri: str) -> str | None:
    """Keep artifacts beside an SQLite database: MLflow would put them into the working folder."""
    parts = urlsplit(tracking_uri)
    if parts.scheme != "sqlite":
        return None
    database = Path(parts.path.removeprefix("/")).absolute()
    return (database.parent / "mlartifacts").as_uri()


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={"kovar": "true"})
    except MlflowException as problem:
        if problem.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tags(version: Version) -> dict[str, str]:
    return {
        "kovar.version": str(version),
        "kovar.digest": version.digest,
        **({"kovar.run": version.run} if version.run else {}),
        **dict(version.tags),
    }


def _log_facts(client: MlflowClient, run_id: str, version: Version) -> None:
    from mlflow.entities import Metric, Param

    manifest = version.manifest
    facts = {"method": manifest.method, "precision": manifest.precision, "seed": manifest.seed}
    parameters = [
        Param(name, str(value)[:_MAX_PARAMETER_CHARS])
        for name, value in [*facts.items(), *_leaves("spec", manifest.spec)]
    ]
    at = int(version.created_at.timestamp() * 1000)
    metrics = [
        Metric(_plain_name(name), float(value), at, 0)
        for name, value in _leaves("", manifest.metrics)
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    for start in range(0, max(len(parameters), len(metrics)), 100):
        part = slice(start, start + 100)
        client.log_batch(run_id, metrics=metrics[part], params=parameters[part])


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), each)
    else:
        yield prefix, value


def _plain_name(name: str) -> str:
    """Keep to the characters that MLflow takes in names."""
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in name)


def _write_mlmodel(folder: Path, version: Version, run_id: str) -> None:
    import yaml

    described = {
        "artifact_path": ARTIFACT_FOLDER,
        "flavors": {"kovar": {"digest": version.digest, "manifest": MANIFEST_FILE}},
        "run_id": run_id,
        "utc_time_created": f"{version.created_at:%Y-%m-%d %H:%M:%S.%f}",
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(described), encoding="utf-8")


def _source_of(client: MlflowClient, uri: str) -> tuple[str, str]:
    """Return the name and the place of a version's artifacts."""
    name, separator, number = uri.removeprefix("models:/").partition("/")
    if not uri.startswith("models:/") or not name:
        raise UserError(
            "not a version of MLflow",
            got=uri,
            allowed="models:/name/number or models:/name@alias",
        )
    if not separator:
        name, _, alias = name.partition("@")
        number = str(client.get_model_version_by_alias(name, alias or "champion").version)
    return name, str(client.get_model_version_download_uri(name, number))


def _flattened(folder: Path, target: Path) -> Path:
    """Join what the `transformers` flavor of MLflow keeps in `model` and `components/tokenizer`."""
    if not (folder / "model" / "config.json").exists():
        return folder
    target.mkdir()
    for part in (folder / "components" / "tokenizer", folder / "model"):
        for path in part.iterdir() if part.is_dir() else ():
            path.rename(target / path.name)
    return target
