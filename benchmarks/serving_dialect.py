"""How each server of serving.py is asked, and where the probabilities are in its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

POSITIVE = "positive"


@dataclass(frozen=True)
class Dialect:
    """What is particular to one kind of server.

    Args:
        path: of the requests.
        body: of a request with these texts.
        scores: the probability of `positive` for each text of an answer.
    """

    path: str
    body: Callable[[Sequence[str]], dict[str, Any]]
    scores: Callable[[Any], list[float]]


def _inputs(texts: Sequence[str]) -> dict[str, Any]:
    return {"inputs": list(texts)}


def _of_pipeline(answer: Any) -> list[float]:
    rows = [{one["label"]: one["score"] for one in row} for row in answer]
    return [row[POSITIVE] for row in rows]


def _tensor(texts: Sequence[str]) -> dict[str, Any]:
    tensor = {"name": "texts", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}
    return {"inputs": [tensor]}


DIALECTS = {
    "kovar": Dialect(
        "/v1/predict",
        _inputs,
        lambda answer: [one["scores"][POSITIVE] for one in answer["predictions"]],
    ),
    "pattern": Dialect("/v1/predict", _inputs, _of_pipeline),
    "fastapi": Dialect("/v1/predict", _inputs, _of_pipeline),
    "bentoml": Dialect(
        "/classify", lambda texts: {"texts": list(texts)}, lambda answer: [row[1] for row in answer]
    ),
    "mlserver": Dialect(
        "/v2/models/classifier/infer", _tensor, lambda answer: answer["outputs"][0]["data"][1::2]
    ),
}
"""By kind of server; the second of the labels is `positive`."""
