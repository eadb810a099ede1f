"""Which of the varied fields made the difference, and how far that can be relied on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from kovar.tuning.report.configuration import Configuration
from kovar.tuning.report.dimension import Dimension, dimensions_of
from kovar.tuning.report.facts import SweepFacts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MIN_CONFIGURATIONS: Final = 8
MIN_EXPLAINED: Final = 0.3
"""Share of the variance of unseen configurations below which nothing is to be read from it."""

_MAX_FITTED: Final = 1000
_NUM_FOLDS: Final = 5
_NUM_REPEATS: Final = 3
_NUM_TREES: Final = 50
_NUM_SHUFFLES: Final = 5


@dataclass(frozen=True)
class FieldImportance:
    """One field.

    Args:
        path: dotted path.
        name: as pictures show it.
        share: of the metric's variance that this field takes part in (its total effect). Shares
            may add up to more than 1: fields act together.
        deviation: of the share between repetitions.
    """

    path: str
    name: str
    share: float
    deviation: float


@dataclass(frozen=True)
class Importance:
    """All fields, the most important first.

    Args:
        fields: none where too little is known.
        explained: share of the variance that is predicted for configurations that the forest has
            not seen (R²); None where it was not fitted.
        num_configurations: with a result.
        caution: why this is to be read with care, or why there is nothing; None if it holds.
    """

    fields: tuple[FieldImportance, ...]
    explained: float | None
    num_configurations: int
    caution: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"fields": [asdict(one) for one in self.fields]}


def importance_of(configurations: Sequence[Configuration], facts: SweepFacts) -> Importance:
    """Fit forests to the configurations with a result, and shuffle one field at a time.

    Permutation importance (Breiman 2001) on held-out configurations: what a forest learned by heart
    counts for nothing. Deterministic.

    Args:
        configurations: of the sweep; of very many, some are drawn.
        facts: of the sweep.
    """
    import numpy as np

    scored = [(c, s.mean) for c in configurations if (s := c.metric(facts.metric)) is not None]
    if len(scored) > _MAX_FITTED:
        scored = random.Random(0).sample(scored, _MAX_FITTED)  # noqa: S311 (no secret)
    dimensions = dimensions_of([c for c, _ in scored], facts)
    quality = np.array([mean for _, mean in scored])
    num = len(scored)
    if not dimensions:
        return Importance((), None, num, "nothing varies among the configurations with a result")
    if num < MIN_CONFIGURATIONS:
        caution = f"{num} configurations with a result are too few; {MIN_CONFIGURATIONS} are needed"
        return Importance((), None, num, caution)
    if float(quality.std()) == 0.0:
        return Importance((), None, num, f"every configuration has the same {facts.metric}")
    columns = [_encoded(dimension) for dimension in dimensions]
    explained, shares = _permuted(columns, quality)
    fields = sorted(
        (
            FieldImportance(d.path, d.name, _share(float(s.mean())), float(s.std()))
            for d, s in zip(dimensions, shares.T, strict=True)
        ),
        key=lambda field: -field.share,
    )
    return Importance(tuple(fields), explained, num, _caution(explained, num, len(dimensions)))


def _share(estimate: float) -> float:
    """Keep an estimate within what a share can be."""
    return min(max(estimate, 0.0), 1.0)


def _caution(explained: float, num: int, num_dimensions: int) -> str | None:
    if explained < MIN_EXPLAINED:
        said = f"predicts {explained:.0%}" if explained > 0 else "predicts nothing"
        return f"not to be relied on: the fitted forest {said} of the variance of unseen points"
    if num < 10 * num_dimensions:
        return f"a rough picture: {num} configurations for {num_dimensions} fields"
    return None


def _encoded(dimension: Dimension) -> npt.NDArray[np.float64]:
    """Return a field as columns: numbers on their scale, or one column per category."""
    import numpy as np

    if dimension.is_numeric:
        return np.array(dimension.numbers)[:, None]
    texts = np.array(dimension.texts)
    return np.stack([texts == one for one in dimension.categories], axis=1).astype(np.float64)


def _permuted(
    columns: Sequence[npt.NDArray[np.float64]], quality: npt.NDArray[np.float64]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return R² of unseen points, and the loss of each field, shape [repeats, fields]."""
    import numpy as np
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.model_selection import KFold

    matrix = np.concatenate(columns, axis=1)
    ends = np.cumsum([one.shape[1] for one in columns])
    places = [slice(end - one.shape[1], end) for one, end in zip(columns, ends, strict=True)]
    generator = np.random.default_rng(0)
    unexplained = np.zeros(_NUM_REPEATS)
    losses = np.zeros((_NUM_REPEATS, len(columns)))
    for repeat in range(_NUM_REPEATS):
        folds = KFold(min(_NUM_FOLDS, len(quality)), shuffle=True, random_state=repeat)
        for seen, unseen in folds.split(matrix):
            forest = ExtraTreesRegressor(_NUM_TREES, random_state=repeat, n_jobs=1)
            forest.fit(matrix[seen], quality[seen])
            error = ((forest.predict(matrix[unseen]) - quality[unseen]) ** 2).sum()
            unexplained[repeat] += error
            for index, place in enumerate(places):
                shuffled = _shuffled(matrix, unseen, place, generator)
                wrong = (forest.predict(shuffled) - np.tile(quality[unseen], _NUM_SHUFFLES)) ** 2
                losses[repeat, index] += wrong.sum() / _NUM_SHUFFLES - error
    total = ((quality - quality.mean()) ** 2).sum()
    # Swapping a value for another adds its part of the variance twice (Jansen 1999).
    return float(1 - unexplained.mean() / total), losses / total / 2


def _shuffled(
    matrix: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    place: slice,
    generator: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Return rows several times over, one field of each taken from any row."""
    import numpy as np

    copies = np.tile(matrix[rows], (_NUM_SHUFFLES, 1))
    copies[:, place] = matrix[generator.integers(0, len(matrix), size=len(copies)), place]
    return copies
