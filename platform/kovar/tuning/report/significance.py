"""Is a configuration worse than the best, or only unlucky with its rows and seeds?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.evaluation.paired import RowSums, resample
from kovar.tuning.points import Point
from kovar.tuning.report.answers import read_answers
from kovar.tuning.report.configuration import Configuration
from kovar.tuning.report.facts import SweepFacts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CONFIDENCE: Final = 0.95
NUM_DRAWS: Final = 2000
SEED: Final = 0

_ROWS: Final = frozenset(
    {"data", "data.source", "data.evaluation", "data.evaluation.source", "data.split_seed"}
)
"""Fields that decide which rows are held out: answers to other rows make no pairs."""


@dataclass(frozen=True)
class Rival:
    """A configuration beside the best one, on the same rows.

    Args:
        configuration: its number.
        gap: by how much the best is better, in the unit of the metric.
        lower: one-sided 95 % bound: the best is better by at least so much.
        upper: the other bound: by at most so much.
    """

    configuration: int
    gap: float
    lower: float
    upper: float

    @property
    def is_worse(self) -> bool:
        """Whether it is significantly worse than the best."""
        return self.lower > 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"is_worse": self.is_worse}


def compare_configurations(
    best: Configuration, others: Sequence[Configuration], *, facts: SweepFacts, folder: Path
) -> tuple[Rival, ...]:
    """Compare configurations with the best by the paired bootstrap over rows and seeds.

    Each draw resamples the rows of the evaluation split, the same ones for all, and the seeds of
    each configuration.

    Args:
        best: the one with the best mean.
        others: those to compare.
        facts: of the sweep.
        folder: of the sweep: answers lie below it.

    Returns:
        One for each that can be compared: every finished trial of it has answers on the rows of
        the best's. None at all if the best itself has no answers.
    """
    import numpy as np

    alike = [one for one in (best, *others) if _decides_rows(one) == _decides_rows(best)]
    answers = {one.number: _answers(one, facts, folder) for one in alike}
    mine = answers[best.number]
    if mine is None:
        return ()
    num_rows = mine[1]
    compared = {n: sums for n, found in answers.items() if (sums := _of_rows(found, num_rows))}
    drawn = resample(
        [sums for each in compared.values() for sums in each],
        num_rows=num_rows,
        num_draws=NUM_DRAWS,
        seed=SEED,
    )
    means = {}
    first = 0
    generator = np.random.default_rng(SEED)
    for number, each in compared.items():
        means[number] = _over_seeds(drawn[first : first + len(each)], generator)
        first += len(each)
    rivals = []
    for one in others:
        if one.number in means:
            gaps = facts.sign * (means[best.number] - means[one.number])
            lower, upper = np.quantile(gaps, [1 - CONFIDENCE, CONFIDENCE])
            gap = facts.sign * (_mean(mine[0]) - _mean(compared[one.number]))
            rivals.append(Rival(one.number, gap, float(lower), float(upper)))
    return tuple(rivals)


def _decides_rows(configuration: Configuration) -> Point:
    return {path: value for path, value in configuration.point.items() if path in _ROWS}


def _answers(
    configuration: Configuration, facts: SweepFacts, folder: Path
) -> tuple[list[RowSums], int] | None:
    found = []
    for trial in configuration.finished:
        if trial.predictions is None:
            return None
        answers = read_answers(folder / trial.predictions, metric=facts.metric)
        if answers is None:
            return None
        found.append(answers)
    counts = {num_rows for _, num_rows in found}
    return ([sums for sums, _ in found], counts.pop()) if len(counts) == 1 else None


def _of_rows(found: tuple[list[RowSums], int] | None, num_rows: int) -> list[RowSums]:
    return found[0] if found is not None and found[1] == num_rows else []


def _mean(seeds: Sequence[RowSums]) -> float:
    """Return the metric of the rows as they are, averaged over seeds."""
    values = [one.value(one.columns().sum(axis=0, keepdims=True)) for one in seeds]
    return float(sum(value.item() for value in values) / len(values))


def _over_seeds(
    values: npt.NDArray[np.float64], generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Average over seeds that are drawn with replacement; [seeds, draws] → [draws]."""
    import numpy as np

    num_seeds, num_draws = values.shape
    if num_seeds == 1:
        only: npt.NDArray[np.float64] = values[0]
        return only
    chosen = generator.integers(0, num_seeds, size=(num_seeds, num_draws))
    means: npt.NDArray[np.float64] = np.take_along_axis(values, chosen, axis=0).mean(axis=0)
    return means
