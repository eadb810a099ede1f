"""The sweep spec: a base fine-tuning spec, the fields that vary, and what counts as better."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator

from kovar.config import Config
from kovar.training.spec import Name
from kovar.tuning.dimension import Dimension
from kovar.tuning.scheduler import NoScheduler, SchedulerSettings
from kovar.tuning.searcher import RandomSearch, SearcherSettings

MAX_TRIALS: Final = 10_000

EXPENSES: Final = ("wall_seconds", "cost")
"""Objectives that are no metric: what a trial takes. Less is better."""


class Budget(Config):
    """What a sweep may use up; the trials that are left or cut then are `unfinished`."""

    hours: float | None = Field(
        default=None, gt=0, description="hours that the sweep runs; pauses do not count"
    )
    cost: float | None = Field(
        default=None, gt=0, description="US dollars of its trials, by the prices of the node types"
    )


def _auto_for_null(value: Any) -> Any:
    return "auto" if value is None else value


class SweepSpec(Config):
    """`kind: sweep`."""

    kind: Literal["sweep"] = Field(description="names this schema")
    name: Name = Field(description="the sweep's name")
    base: str | dict[str, JsonValue] = Field(
        description="the fine-tuning spec: a file, relative to this one, or its fields"
    )
    overrides: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="fields of the base that all trials change: dotted path → value",
    )
    search: dict[str, Dimension] = Field(
        min_length=1, description="fields that vary: dotted path → how"
    )
    searcher: SearcherSettings = Field(
        default=RandomSearch(),
        description="how configurations are chosen: grid, random, quasi_random or tpe",
    )
    scheduler: SchedulerSettings = Field(
        default=NoScheduler(),
        description="which trials go on: none, asha, median, hyperband or pbt",
    )
    num_samples: int = Field(
        default=1,
        ge=1,
        le=MAX_TRIALS,
        description="draws; the whole grid is tried with each",
    )
    seeds: int = Field(
        default=1,
        ge=1,
        le=100,
        description="trials of each configuration, with training.seed, training.seed + 1 …",
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="seed of the draws")
    metric: str = Field(
        default="auto",
        description="metric on the evaluation split that ranks the trials; auto: the base's "
        "training.metric, or else the task's own",
    )
    mode: Literal["auto", "max", "min"] = Field(
        default="auto", description="whether more or less of it is better; auto: as the metric is"
    )
    select: Literal["auto", "best", "last"] = Field(
        default="auto",
        description="which evaluation of a trial counts, and whose weights are kept: its best or "
        "its last; auto: best where the base keeps its best step",
    )
    objectives: tuple[str, ...] = Field(
        default=(),
        description="what is weighed against each other: metrics, wall_seconds, cost",
    )
    budget: Budget = Field(
        default=Budget(), description="what the sweep may use up: hours, cost (US dollars)"
    )
    max_concurrent: Annotated[
        Annotated[int, Field(ge=1)] | Literal["auto"], BeforeValidator(_auto_for_null)
    ] = Field(default="auto", description="trials at once; auto: as many as fit by the plan")
    warm_start: str | None = Field(
        default=None,
        description="folder of an earlier sweep that the searcher learns from, relative to this "
        "file",
    )

    @property
    def limit(self) -> int | None:
        """Most trials at once that the user allows; None for no limit."""
        return None if self.max_concurrent == "auto" else self.max_concurrent

    @property
    def is_adaptive(self) -> bool:
        """Whether configurations depend on results, so that they are not known beforehand."""
        return self.searcher.kind == "tpe"

    @field_validator("objectives")
    @classmethod
    def _several_that_differ(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        if len(objectives) == 1:
            raise ValueError("one objective is the metric; give two or more, or leave this out")
        if len(set(objectives)) < len(objectives):
            raise ValueError("an objective is listed twice")
        if objectives and not set(objectives) - set(EXPENSES):
            raise ValueError("at least one objective is a metric of the task")
        return objectives
