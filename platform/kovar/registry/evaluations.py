"""Evaluations of a version on further data sets, kept beside it: a version itself never changes.

Each is a derived artifact of kind `evaluation` with two files: `evaluation.json` holds the metrics
with their intervals and slices, `evaluation/predictions.json` the label of every row, so that two
versions can be compared in pairs. Gates read both as they read those of the manifest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError

from kovar.config import Config, canonical_json
from kovar.errors import RegistryError, UserError
from kovar.registry.manifest import Sha256
from kovar.registry.predictions import (
    PREDICTIONS_FILE,
    DatasetPredictions,
    Predictions,
    read_predictions,
    write_predictions,
)
from kovar.registry.reference import check_name

if TYPE_CHECKING:
    from kovar.registry.artifacts import ArtifactStore
    from kovar.registry.derived import DerivedArtifact
    from kovar.registry.version import Version

EVALUATION_KIND: Final = "evaluation"
EVALUATION_FILE: Final = "evaluation.json"


class EvaluationRecord(Config):
    """What was found on one data set. Repeatable: it holds no time and no duration."""

    format: Literal[1] = Field(default=1, description="format of the file")
    dataset: str = Field(description="name of the data set, as gates and cards call it")
    data: dict[str, JsonValue] = Field(description="where the rows came from, and which they are")
    rows: Sha256 = Field(description="digest of the evaluated rows in their order")
    runtime: str = Field(description="what executed the version")
    precision: str = Field(description="number format that it computed in")
    chip: str = Field(description="the processor that it ran on")
    metrics: dict[str, JsonValue] = Field(description="metric → value, as in a manifest")
    intervals: dict[str, tuple[float, float]] = Field(
        description="flat name of a metric → 95 % interval"
    )
    reliability: list[dict[str, JsonValue]] = Field(description="rows by confidence")
    slices: list[dict[str, JsonValue]] = Field(description="metrics of some rows")


@dataclass(frozen=True, kw_only=True)
class StoredEvaluation:
    """An evaluation in the registry."""

    digest: str
    """Of the derived artifact that holds it."""
    record: EvaluationRecord
    created_at: datetime
    created_by: str


def check_dataset(version: Version, dataset: str, *, field: str = "data.name") -> str:
    """Return the name of a data set that a version may be evaluated on later.

    Raises:
        UserError: not a name, or the name of metrics that the version itself holds.
    """
    check_name(dataset, field=field)
    if dataset in version.manifest.metrics:
        raise UserError(
            f"{version} has metrics of this name from its own run, which cannot be replaced",
            field=field,
            got=dataset,
            hint="name the data set otherwise",
        )
    return dataset


def write_evaluation(
    record: EvaluationRecord, predictions: DatasetPredictions | None, folder: Path
) -> None:
    """Write the files of an evaluation into a folder that is about to be stored."""
    content = record.model_dump(mode="json") | {"format": record.format}
    (folder / EVALUATION_FILE).write_bytes(canonical_json(content) + b"\n")
    if predictions is not None:
        write_predictions(Predictions(datasets={record.dataset: predictions}), folder)


def read_evaluations(
    artifacts: ArtifactStore, derived: tuple[DerivedArtifact, ...]
) -> dict[str, StoredEvaluation]:
    """Return data set → its newest evaluation.

    Args:
        artifacts: where the blobs are.
        derived: the derived artifacts of one version, oldest first.

    Raises:
        DamagedArtifactError: a blob is missing, truncated or altered.
        RegistryError: a file is not what `write_evaluation` writes.
    """
    found = {}
    for artifact in _newest(derived).values():
        with tempfile.TemporaryDirectory() as folder:
            path = _fetch(artifacts, artifact, EVALUATION_FILE, Path(folder))
            record = _read(path)
        found[record.dataset] = StoredEvaluation(
            digest=artifact.digest,
            record=record,
            created_at=artifact.created_at,
            created_by=artifact.created_by,
        )
    return found


def read_evaluated_predictions(
    artifacts: ArtifactStore, derived: tuple[DerivedArtifact, ...]
) -> Mapping[str, DatasetPredictions]:
    """Return data set → what was predicted in its newest evaluation."""
    found: dict[str, DatasetPredictions] = {}
    for artifact in _newest(derived).values():
        if all(file.path != PREDICTIONS_FILE for file in artifact.manifest.files):
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = _fetch(artifacts, artifact, PREDICTIONS_FILE, Path(folder))
            found.update(read_predictions(path).datasets)
    return found


def _newest(derived: tuple[DerivedArtifact, ...]) -> dict[Any, DerivedArtifact]:
    """Pick the newest evaluation of each data set; their manifests name it."""
    return {
        one.manifest.settings.get("dataset"): one
        for one in derived
        if one.manifest.kind == EVALUATION_KIND
    }


def _fetch(artifacts: ArtifactStore, artifact: DerivedArtifact, name: str, folder: Path) -> Path:
    entry = next((file for file in artifact.manifest.files if file.path == name), None)
    if entry is None:
        raise RegistryError(f"the evaluation {artifact.digest[:12]} has no {name}")
    path = folder / Path(name).name
    artifacts.fetch(entry, path)
    return path


def _read(path: Path) -> EvaluationRecord:
    try:
        return EvaluationRecord.model_validate_json(path.read_bytes())
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RegistryError(
            f"{EVALUATION_FILE}: {where}: {first['msg']}", hint="evaluate the version again"
        ) from None
