"""MLflow: one MLflow run per run, found again by its tag when a run is resumed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kovar.training.trackers.scalars import Point
from kovar.training.trackers.tracker import TrackedRun

_TAG: Final = "kovar.run"
_MAX_PARAMETERS: Final = 100
"""MLflow takes no more in one request."""
_MAX_VALUE: Final = 500


class MlflowRun:
    """MLflow, at the server or folder that `MLFLOW_TRACKING_URI` names.

    The experiment is `MLFLOW_EXPERIMENT_NAME`, or else the model's name.
    """

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.model)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        known = self._client.search_runs([number], f"tags.`{_TAG}` = '{run.run}'", max_results=1)
        if known:
            self._id = known[0].info.run_id
            self._client.set_terminated(self._id, "RUNNING")
            return
        created = self._client.create_run(number, tags={_TAG: run.run}, run_name=run.run)
        self._id = created.info.run_id
        self._log_parameters(run.spec)

    def log(self, point: Point) -> None:
        """Send the scalars of one step in one request."""
        from mlflow.entities import Metric

        moment = int(point.at * 1000)
        metrics = [Metric(k, v, moment, point.step) for k, v in point.scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def finish(self, *, succeeded: bool) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self._id, "FINISHED" if succeeded else "FAILED")

    def _log_parameters(self, spec: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, text[:_MAX_VALUE]) for name, text in _flat(spec)]
        for start in range(0, len(parameters), _MAX_PARAMETERS):
            part = parameters[start : start + _MAX_PARAMETERS]
            self._client.log_batch(self._id, params=part)


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name nested fields with dots, as errors about a spec do."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)
