"""The sweep spec: a base fine-tuning spec, the fields that vary, and what counts as better."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from kovar.config import Config
from kovar.training.spec import Name


class Grid(Config):
    """Every value is tried, in combination with those of the other grids."""

    kind: Literal["grid"]
    values: tuple[JsonValue, ...] = Field(min_length=1, description="the values")


class Choice(Config):
    """One of the values, drawn at random for each sample."""

    kind: Literal["choice"]
    values: tuple[JsonValue, ...] = Field(min_length=1, description="the values")


class _Range(Config):
    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")

    @field_validator("high")
    @classmethod
    def _high_is_above_low(cls, high: float, info: ValidationInfo) -> float:
        if "low" in info.data and high <= info.data["low"]:
            raise ValueError(f"high must be above low, which is {info.data['low']}")
        return high


class Uniform(_Range):
    """A number drawn evenly from [low, high)."""

    kind: Literal["uniform"]


class LogUniform(_Range):
    """A number whose logarithm is drawn evenly: for learning rates."""

    kind: Literal["loguniform"]
    low: float = Field(gt=0, description="smallest value, above 0")


class Integer(_Range):
    """A whole number drawn evenly from low to high, both included."""

    kind: Literal["integer"]
    low: int = Field(description="smallest value")
    high: int = Field(description="largest value")


Dimension = Annotated[Grid | Choice | Uniform | LogUniform | Integer, Field(discriminator="kind")]
"""How one field varies; `kind` is grid, choice, uniform, loguniform or integer."""


class SweepSpec(Config):
    """`kind: sweep`."""

    kind: Literal["sweep"] = Field(description="names this schema")
    name: Name = Field(description="the sweep's name")
    base: str = Field(description="the fine-tuning spec, relative to this file")
    overrides: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="fields of the base that all trials change: dotted path → value",
    )
    search: dict[str, Dimension] = Field(
        min_length=1, description="fields that vary: dotted path → how"
    )
    num_samples: int = Field(
        default=1, ge=1, le=10_000, description="random draws; the whole grid is tried with each"
    )
    seed: int = Field(default=0, ge=0, description="seed of the draws")
    metric: Literal["accuracy", "macro_f1"] = Field(
        default="accuracy", description="metric on the evaluation split that ranks the trials"
    )
    mode: Literal["max"] = Field(
        default="max", description="larger is better, as it is for every metric here"
    )
    max_concurrent: int | None = Field(
        default=None, ge=1, description="trials at once; as many as fit if absent"
    )
