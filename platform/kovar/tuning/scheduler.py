"""Which trials go on, decided from their evaluations while they run."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from kovar.config import Config, name_as_kind


class NoScheduler(Config):
    """Every trial runs to its end."""

    kind: Literal["none"] = "none"


class Asha(Config):
    """Ends trials that are worse than most at the same evaluation, without waiting for others.

    Asynchronous successive halving: Li and others 2020, https://arxiv.org/abs/1810.05934.
    """

    kind: Literal["asha"] = "asha"
    grace: int = Field(
        default=1, ge=1, description="evaluations that every trial has before it may be ended"
    )
    reduction_factor: float = Field(
        default=3.0, ge=2, description="one of so many trials goes on at each halt"
    )
    brackets: int = Field(
        default=1, ge=1, le=8, description="groups of trials, each with a longer grace"
    )


class MedianStopping(Config):
    """Ends trials whose best is worse than the median of the others' means until then.

    Golovin and others 2017, https://doi.org/10.1145/3097983.3098043.
    """

    kind: Literal["median"] = "median"
    grace: int = Field(
        default=1, ge=1, description="evaluations that every trial has before it may be ended"
    )
    min_trials: int = Field(
        default=3, ge=1, description="trials with as many evaluations, before any is ended"
    )


class HyperBand(Config):
    """Runs halving with several graces side by side, from one evaluation to all of them.

    It is for metrics that say little early on: HyperBand (Li and others 2018,
    https://jmlr.org/papers/v18/16-558.html) without waiting, as in section 3.2 of
    https://arxiv.org/abs/1810.05934.
    """

    kind: Literal["hyperband"] = "hyperband"
    max_evaluations: int = Field(ge=2, description="evaluations of a trial that is never ended")
    reduction_factor: float = Field(
        default=3.0, ge=2, description="one of so many trials goes on at each halt"
    )


class Pbt(Config):
    """Lets poor trials go on from a good one's weights with changed hyperparameters.

    Population-based training: Jaderberg and others 2017, https://arxiv.org/abs/1711.09846.
    """

    kind: Literal["pbt"] = "pbt"
    every: int = Field(default=1, ge=1, description="evaluations between two changes of a trial")
    quantile: float = Field(
        default=0.25,
        gt=0,
        le=0.5,
        description="share of the trials that are replaced, and that replace them",
    )
    resample_probability: float = Field(
        default=0.25, ge=0, le=1, description="how often a value is drawn anew, not perturbed"
    )
    factor: float = Field(
        default=1.2, gt=1, description="what a number is multiplied or divided by"
    )


SchedulerSettings = Annotated[
    Annotated[NoScheduler | Asha | MedianStopping | HyperBand | Pbt, Field(discriminator="kind")],
    BeforeValidator(name_as_kind),
]
"""`scheduler: asha`, or a block with `kind: asha` and its fields."""

CHANGEABLE: Final = frozenset(
    {
        "training.learning_rate",
        "training.weight_decay",
        "training.dropout",
        "training.label_smoothing",
        "training.max_gradient_norm",
    }
)
"""Fields that may change while a trial trains: the batches and the weights' shapes stay."""
