"""95 % confidence intervals of a classifier's metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kovar.evaluation.bootstrap import NUM_DRAWS, bootstrap, weighted_means
from kovar.evaluation.calibration import brier_scores, calibration_error, losses
from kovar.evaluation.ranking import ranking_areas
from kovar.registry.interval import LEVEL, Interval, macro_f1_interval, resampled, wilson

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.evaluation.metrics import ClassificationMetrics


def count_intervals(metrics: ClassificationMetrics) -> dict[str, Interval]:
    """Return the intervals of what follows from the confusion matrix, under flat names.

    Accuracy has Wilson's interval, the others are bootstrapped: the same numbers that a model card
    shows. Names of labels' metrics are those of gates: `per_class.good.f1`.
    """
    if metrics.num_rows == 0:
        return {}
    found = {
        "accuracy": wilson(metrics.accuracy, metrics.num_rows),
        "macro_f1": macro_f1_interval(metrics.confusion_matrix),
    }
    return found | _label_intervals(metrics)


def _label_intervals(metrics: ClassificationMetrics) -> dict[str, Interval]:
    import numpy as np

    drawn = resampled(metrics.confusion_matrix)
    right = np.diagonal(drawn, axis1=1, axis2=2)
    there, named = drawn.sum(axis=2), drawn.sum(axis=1)
    values = {
        "precision": right / np.maximum(named, 1),
        "recall": right / np.maximum(there, 1),
        "f1": 2 * right / np.maximum(there + named, 1),
    }
    found = {
        f"macro_{name}": _middle(values[name].mean(axis=1)) for name in ("precision", "recall")
    }
    for index, label in enumerate(metrics.labels):
        for name, value in values.items():
            found[f"per_class.{label}.{name}"] = _middle(value[:, index])
    return found


def _middle(values: npt.NDArray[Any]) -> Interval:
    import numpy as np

    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def score_intervals(
    true: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    *,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the intervals of what depends on the probabilities, by bootstrap over the rows.

    Args:
        true: label index per row, shape [rows].
        scores: probabilities, shape [rows, labels].
        num_draws: resampled data sets.
        seed: of the draws.
    """
    import numpy as np

    areas = ranking_areas(np.arange(scores.shape[1]) == true[:, None], scores)
    statistics = [
        weighted_means({"loss": losses(true, scores), "brier": brier_scores(true, scores)}),
        calibration_error(scores.max(axis=1), scores.argmax(axis=1) == true),
        *([areas] if areas else []),
    ]
    return bootstrap(statistics, num_rows=len(true), num_draws=num_draws, seed=seed)
