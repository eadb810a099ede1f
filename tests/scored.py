"""Made-up answers of a classifier, more or less right."""

from __future__ import annotations

import numpy as np


def answers(num_rows: int, num_labels: int, *, skill: float = 1.0, seed: int = 0, digits: int = 6):
    """Return true label indexes, shape [rows], and probabilities, shape [rows, labels]."""
    random = np.random.default_rng(seed)
    true = random.integers(0, num_labels, num_rows)
    logits = random.normal(size=(num_rows, num_labels))
    logits[np.arange(num_rows), true] += skill
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return true, scores.round(digits)
