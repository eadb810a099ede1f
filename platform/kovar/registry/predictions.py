"""What a version predicted for each evaluated row, so that two versions can be compared in pairs.

Predictions travel inside the version as `evaluation/predictions.json`. The file holds no text:
rows are numbers, in the order in which they were evaluated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from kovar.config import Config, canonical_json
from kovar.errors import RegistryError
from kovar.registry.manifest import Sha256

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PREDICTIONS_FILE: Final = "evaluation/predictions.json"


class DatasetPredictions(Config):
    """The predictions for one data set."""

    rows: Sha256 = Field(
        description="digest of the evaluated rows in their order, as `rows_digest` computes it"
    )
    labels: tuple[str, ...] = Field(min_length=2, description="names of the labels, by index")
    true: tuple[int, ...] = Field(min_length=1, description="true label index per row")
    predicted: tuple[int, ...] = Field(description="predicted label index per row")

    @model_validator(mode="after")
    def _rows_agree(self) -> DatasetPredictions:
        if len(self.true) != len(self.predicted):
            raise ValueError(f"{len(self.true)} true labels, {len(self.predicted)} predicted ones")
        for index in {*self.true, *self.predicted}:
            if not 0 <= index < len(self.labels):
                raise ValueError(f"label index {index} with {len(self.labels)} labels")
        return self

    def correct(self) -> npt.NDArray[np.bool_]:
        """Return whether each row is predicted as its true label, shape [rows]."""
        import numpy as np

        right: npt.NDArray[np.bool_] = np.asarray(self.true) == np.asarray(self.predicted)
        return right


class Predictions(Config):
    """The predictions of one version."""

    format: Literal[1] = Field(default=1, description="format of the file")
    datasets: dict[str, DatasetPredictions] = Field(
        description="data set, as the metrics name it → its predictions"
    )


def rows_digest(rows: Iterable[tuple[Any, str]]) -> str:
    """Digest the evaluated rows, so that only equal ones are compared.

    Args:
        rows: what was read (a text, a pair of them, a list of words) and what is true of it, of
            each row, in order.
    """
    digest = hashlib.sha256()
    for content, label in rows:
        digest.update(json.dumps([content, label]).encode() + b"\n")
    return digest.hexdigest()


def write_predictions(predictions: Predictions, folder: Path) -> Path:
    """Write the file into a folder that is about to be registered."""
    path = folder / PREDICTIONS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    content = predictions.model_dump(mode="json") | {"format": predictions.format}
    path.write_bytes(canonical_json(content) + b"\n")
    return path


def read_predictions(path: Path) -> Predictions:
    """Read the predictions of a version.

    Raises:
        RegistryError: the file is not what `write_predictions` writes.
    """
    try:
        return Predictions.model_validate_json(path.read_bytes())
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RegistryError(
            f"{PREDICTIONS_FILE}: {where}: {first['msg']}",
            hint="evaluate and register the version again",
        ) from None
