"""The fine-tuning spec: one YAML file holds everything that decides a run's result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from kovar.config import Config
from kovar.data import DataSpec
from kovar.errors import UserError
from kovar.models import ModelSpec
from kovar.precision import Precision
from kovar.registry.reference import check_name
from kovar.resources import Resources
from kovar.training.tasks import TaskName


def _registrable(name: str) -> str:
    """Refuse now what the registry would refuse after the training."""
    try:
        return check_name(name, field="name")
    except UserError as error:
        details = (error.message, error.context["allowed"], error.hint)
        raise ValueError("; ".join(filter(None, details))) from None


Name = Annotated[str, AfterValidator(_registrable)]
"""Name of a model, an alias or a sweep, as the registry accepts it."""


class TrainingSettings(Config):
    """How the weights move."""

    epochs: int = Field(default=2, ge=1, description="passes over the training split")
    max_steps: int | None = Field(
        default=None, ge=1, description="stop after this many steps, whatever the epochs"
    )
    max_tokens: int = Field(
        default=1664,
        ge=1,
        description="padded tokens in one global batch, shared by all workers",
    )
    micro_batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="padded tokens that one worker passes through the model at a time; gradients "
        "add up until the global batch is done; absent: all of the worker's share at once",
    )
    learning_rate: float = Field(default=5e-5, gt=0, le=1, description="peak learning rate")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="shape of the decay after the warm-up"
    )
    warmup: float = Field(default=0.06, ge=0, lt=1, description="share of the steps that warm up")
    weight_decay: float = Field(
        default=0.01, ge=0, description="AdamW decay; norms and biases have none"
    )
    max_gradient_norm: float = Field(default=1.0, gt=0, description="clip above this L2 norm")
    seed: int = Field(
        default=0, ge=0, lt=1 << 63, description="decides the batch order, the head and dropout"
    )
    evaluate_every: int | None = Field(
        default=None, ge=1, description="steps between evaluations; at every epoch's end if absent"
    )
    checkpoint_every: int = Field(default=100, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(default=2, ge=1, description="newest checkpoints kept")


class RegistrationSettings(Config):
    """What becomes of the trained weights."""

    alias: Name | None = Field(
        default=None, description="alias that is pointed at the new version, by compare-and-swap"
    )
    intended_use: str = Field(default="", description="for the model card: who uses it, for what")
    limits: str = Field(default="", description="for the model card: where it should not be used")


class FineTuneSpec(Config):
    """`kind: finetune`."""

    kind: Literal["finetune"] = Field(description="names this schema")
    name: Name = Field(description="the model's name in the registry")
    task: TaskName = Field(default="text-classification", description="what is learned")
    model: ModelSpec
    data: DataSpec
    training: TrainingSettings = TrainingSettings()
    precision: Precision = Field(default="auto", description="number format of the compute")
    resources: Resources = Resources()
    max_failures: int = Field(
        default=3, ge=0, description="worker crashes survived before the run is given up"
    )
    registration: RegistrationSettings = RegistrationSettings()
