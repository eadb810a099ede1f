"""How much each token of a text counted for its label."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from kovar.config import Config


class TokenWeight(Config):
    """One token of a text and its weight."""

    token: str = Field(description="the token as the model's vocabulary writes it")
    start: int = Field(description="its first character in the text")
    end: int = Field(description="the character after its last one")
    weight: float = Field(description="how much it counted; below 0: against the label")


Span = tuple[str, int, int]
"""A token, its first character in the text, and the character after its last one."""


def token_weights(spans: Sequence[Span], weights: Sequence[float]) -> list[TokenWeight]:
    """Name the tokens of a text; those that the tokenizer adds, such as `[CLS]`, are left out.

    Args:
        spans: the tokens that the model read, in order; added ones are of no character.
        weights: one for each.
    """
    return [
        TokenWeight(token=token, start=start, end=end, weight=weight)
        for (token, start, end), weight in zip(spans, weights, strict=True)
        if start < end
    ]
