"""Bootstrap confidence intervals of metrics that depend on every row's score.

A resampled data set is a weight per row: how often the row was drawn. So no row is ever copied.
Metrics that follow from counts alone take the shorter way through `kovar.registry.interval`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from kovar.registry.interval import LEVEL, Interval

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NUM_DRAWS: Final = 1000

Statistic = Callable[["npt.NDArray[np.float64]"], Mapping[str, float]]
"""Weight of each row, shape [rows] → name of a metric → its value; NaN where it is undefined."""


def bootstrap(
    statistics: Sequence[Statistic],
    *,
    num_rows: int,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the 95 % percentile interval of each metric (Efron and Tibshirani 1993).

    All statistics see the same draws. Equal arguments give equal intervals.

    Args:
        statistics: metrics of weighted rows.
        num_rows: rows that are resampled.
        num_draws: resampled data sets.
        seed: of the draws.

    Returns:
        Name → lowest and highest value; a metric that is undefined in more than half of the draws
        has none.
    """
    import numpy as np

    values: dict[str, list[float]] = {}
    for weights in draw_weights(num_rows, num_draws=num_draws, seed=seed):
        for statistic in statistics:
            for name, value in statistic(weights).items():
                values.setdefault(name, []).append(value)
    found: dict[str, Interval] = {}
    for name, each in values.items():
        drawn = np.asarray(each)
        drawn = drawn[np.isfinite(drawn)]
        if 2 * len(drawn) > num_draws:
            low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            found[name] = float(low), float(high)
    return found


def draw_weights(num_rows: int, *, num_draws: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield how often each row is drawn, shape [rows], once per draw."""
    import numpy as np

    generator = np.random.default_rng(seed)
    for _ in range(num_draws):
        drawn = generator.integers(0, num_rows, size=num_rows, dtype=np.int32)
        yield np.bincount(drawn, minlength=num_rows).astype(np.float64)


def weighted_means(values: Mapping[str, npt.NDArray[np.float64]]) -> Statistic:
    """Return the statistic of metrics that are the mean of one value per row.

    Args:
        values: name → value of each row, shape [rows].
    """
    import numpy as np

    table = np.stack(list(values.values()))

    def means(weights: npt.NDArray[np.float64]) -> Mapping[str, float]:
        found = (table @ weights / weights.sum()).tolist()
        return dict(zip(values, found, strict=True))

    return means
