"""How one field of a sweep varies: listed values, or a range of numbers."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from kovar.config import Config


def same(one: JsonValue, other: JsonValue) -> bool:
    """Compare two values of a file, in which true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


class _Dimension(Config):
    when: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="varies only where other dimensions have these values: dotted path → a value "
        "or a list of them",
    )

    def holds(self, path: str, value: JsonValue) -> bool:
        """Return whether another dimension's value meets the condition on it."""
        wanted = self.when[path]
        return any(same(value, one) for one in (wanted if isinstance(wanted, list) else [wanted]))


class _Values(_Dimension):
    values: tuple[JsonValue, ...] = Field(min_length=1, description="the values")

    @field_validator("values")
    @classmethod
    def _values_have_a_json_form(cls, values: tuple[JsonValue, ...]) -> tuple[JsonValue, ...]:
        for value in values:
            try:
                json.dumps(value, allow_nan=False)
            except ValueError:
                raise ValueError(f"{value!r} is not finite") from None
        return values

    @field_validator("values")
    @classmethod
    def _values_differ(cls, values: tuple[JsonValue, ...]) -> tuple[JsonValue, ...]:
        for index, value in enumerate(values):
            if any(same(value, other) for other in values[:index]):
                raise ValueError(f"{value!r} is listed twice")
        return values


class Grid(_Values):
    """Every value is tried, in combination with those of the other grids."""

    kind: Literal["grid"]


class Choice(_Values):
    """One of the values, chosen anew for each sample."""

    kind: Literal["choice"]


class _Range(_Dimension):
    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    step: float | None = Field(
        default=None, gt=0, description="only low, low + step, low + 2 × step … up to high"
    )

    @field_validator("high")
    @classmethod
    def _high_is_above_low(cls, high: float, info: ValidationInfo) -> float:
        if "low" in info.data and high <= info.data["low"]:
            raise ValueError(f"high must be above low, which is {info.data['low']}")
        return high

    @field_validator("step")
    @classmethod
    def _step_fits(cls, step: float | None, info: ValidationInfo) -> float | None:
        if step is not None and {"low", "high"} <= info.data.keys():
            span = info.data["high"] - info.data["low"]
            if step > span:
                raise ValueError(f"step must be at most high - low, which is {span:g}")
        return step


class Uniform(_Range):
    """A number, every one as likely as another."""

    kind: Literal["uniform"]


class LogUniform(_Range):
    """A number whose logarithm is drawn evenly: for learning rates."""

    kind: Literal["loguniform"]
    low: float = Field(gt=0, description="smallest value, above 0")


class Integer(_Range):
    """A whole number from low to high, both included."""

    kind: Literal["integer"]
    low: int = Field(description="smallest value")
    high: int = Field(description="largest value")
    step: int = Field(
        default=1, ge=1, description="only low, low + step, low + 2 × step … up to high"
    )
    log: bool = Field(
        default=False, description="draw the logarithm evenly: as many from 8 to 16 as to 32"
    )

    @field_validator("log")
    @classmethod
    def _log_of_positive_numbers(cls, log: bool, info: ValidationInfo) -> bool:
        if log and info.data.get("low", 1) < 1:
            raise ValueError("a logarithmic range starts at 1 or above")
        return log


Range = Uniform | LogUniform | Integer
"""A dimension that is a range of numbers."""

Dimension = Annotated[Grid | Choice | Uniform | LogUniform | Integer, Field(discriminator="kind")]
"""How one field varies; `kind` is grid, choice, uniform, loguniform or integer."""


def is_logarithmic(dimension: Dimension) -> bool:
    """Return whether a dimension's values are drawn evenly on a logarithmic scale."""
    return isinstance(dimension, LogUniform) or (isinstance(dimension, Integer) and dimension.log)
