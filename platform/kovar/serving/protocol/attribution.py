"""How much each token of a text counted for its label."""

from __future__ import annotations

from pydantic import Field

from kovar.config import Config


class TokenWeight(Config):
    """One token of a text and its weight."""

    token: str = Field(description="the token as the model's vocabulary writes it")
    start: int = Field(description="its first character in the text")
    end: int = Field(description="the character after its last one")
    weight: float = Field(description="how much it counted; below 0: against the label")
