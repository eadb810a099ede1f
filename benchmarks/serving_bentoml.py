"""BentoML's side of benchmarks/serving.py: its documented pattern for batches.

usage: THREADS=2 bentoml serve serving_bentoml:Service --working-dir FOLDER

FOLDER holds this file and serving_onnx.py with what it needs. Source of the pattern:
https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html
"""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import numpy as np
from serving_onnx import Classifier

MAX_ROWS = 64


@bentoml.service(
    workers=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},  # lines that cost time at each request
)
class Service:
    """One worker, whose dispatcher makes batches of the requests that wait."""

    def __init__(self) -> None:
        self.classifier = Classifier(Path(__file__).parent, threads=int(os.environ["THREADS"]))

    @bentoml.api(route="/classify", batchable=True, max_batch_size=MAX_ROWS)
    def classify(self, texts: list[str]) -> np.ndarray:
        """Return the probability of every label of each text."""
        return self.classifier.scores(texts)
