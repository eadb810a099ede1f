"""Metrics of several models on the same resampled rows, so that their differences can be judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from kovar.evaluation.bootstrap import NUM_DRAWS, draw_weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BLOCK_SIZE: Final = 20_000_000
"""Row weights that are held at once."""


@dataclass(frozen=True)
class RowSums:
    """A metric that follows from sums over rows: accuracy, F1, perplexity and their like.

    Args:
        columns: returns what is summed, shape [rows, columns]; called once per block of draws, so
            that wide columns need not be kept.
        value: sums of shape [draws, columns] → the metric of each draw, shape [draws].
    """

    columns: Callable[[], npt.NDArray[np.floating]]
    value: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def resample(
    models: Sequence[RowSums], *, num_rows: int, num_draws: int = NUM_DRAWS, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the metric of each model on each resampled data set, shape [models, draws].

    All models see the same draws, so that the differences of two rows of the result are those of
    the paired bootstrap (Efron and Tibshirani 1993; Koehn 2004).

    Args:
        models: at least one; all were evaluated on the same rows in the same order.
        num_rows: rows that are resampled with replacement.
        num_draws: resampled data sets.
        seed: of the draws.
    """
    import numpy as np

    blocks = []
    for weights in _blocks(num_rows, num_draws=num_draws, seed=seed):
        sums = (weights @ model.columns().astype(np.float64) for model in models)
        blocks.append(
            np.stack([model.value(each) for model, each in zip(models, sums, strict=True)])
        )
    return np.concatenate(blocks, axis=1)


def _blocks(num_rows: int, *, num_draws: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the weights of several draws at a time, shape [draws, rows]."""
    import numpy as np

    drawn = draw_weights(num_rows, num_draws=num_draws, seed=seed)
    size = max(1, _BLOCK_SIZE // max(1, num_rows))
    while block := list(islice(drawn, size)):
        yield np.stack(block)
