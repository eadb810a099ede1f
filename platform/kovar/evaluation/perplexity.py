"""How surprised a language model is: perplexity of its next, or its masked, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kovar.evaluation.bootstrap import bootstrap

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kovar.registry.interval import Interval


@dataclass(frozen=True)
class LanguageMetrics:
    """How well tokens are predicted.

    Args:
        loss: mean cross-entropy per token in nats.
        perplexity: exp(loss): among so many equally likely tokens the model chooses.
        bits_per_token: the loss in bits.
        num_tokens: tokens that were predicted.
        num_rows: texts that they are of.
    """

    loss: float
    perplexity: float
    bits_per_token: float
    num_tokens: int
    num_rows: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, as stored in a version's manifest."""
        return asdict(self)


def language_metrics(
    loss_sums: npt.NDArray[np.float64], num_tokens: npt.NDArray[np.int64]
) -> LanguageMetrics:
    """Score texts; every token has the same weight, whatever text it is of.

    Args:
        loss_sums: Σ of the cross-entropies of a text's tokens in nats, shape [rows].
        num_tokens: how many they are, shape [rows].

    Raises:
        ValueError: there is no token.
    """
    total = int(num_tokens.sum())
    if total == 0:
        raise ValueError("perplexity of no token")
    loss = float(loss_sums.sum()) / total
    return LanguageMetrics(
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_token=loss / math.log(2),
        num_tokens=total,
        num_rows=len(num_tokens),
    )


def perplexity(loss: float) -> float:
    """Return exp(loss); infinite where that is no number any more.

    Args:
        loss: mean cross-entropy per token in nats.
    """
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def language_intervals(
    loss_sums: npt.NDArray[np.float64], num_tokens: npt.NDArray[np.int64], *, seed: int = 0
) -> dict[str, Interval]:
    """Return the 95 % intervals of loss and perplexity, by bootstrap over the texts.

    Tokens of one text depend on each other, so whole texts are drawn.

    Args:
        loss_sums: Σ of the cross-entropies of a text's tokens in nats, shape [rows].
        num_tokens: how many they are, shape [rows].
        seed: of the draws.
    """

    def loss(weights: npt.NDArray[np.float64]) -> Mapping[str, float]:
        tokens = float(num_tokens @ weights)
        return {"loss": float(loss_sums @ weights) / tokens if tokens else math.nan}

    intervals = bootstrap([loss], num_rows=len(loss_sums), seed=seed)
    if "loss" not in intervals:
        return {}
    low, high = intervals["loss"]
    # exp is monotonic, so the quantiles of the one are those of the other.
    return intervals | {"perplexity": (perplexity(low), perplexity(high))}
