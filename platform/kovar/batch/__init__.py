"""A version on many rows: evaluation and batch inference, as Ray Data jobs."""

from kovar.batch.spec import (
    EvaluateData,
    EvaluateSpec,
    PredictInput,
    PredictOutput,
    PredictSpec,
    SliceSettings,
)

__all__ = [
    "EvaluateData",
    "EvaluateSpec",
    "PredictInput",
    "PredictOutput",
    "PredictSpec",
    "SliceSettings",
]
