"""The fine-tuning spec: one YAML file holds everything that decides a run's result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from kovar.config import Config
from kovar.data import LAYOUTS, DataSpec
from kovar.errors import UserError
from kovar.models import ModelSpec
from kovar.precision import Precision
from kovar.registry.reference import check_name
from kovar.resources import Resources
from kovar.training.halves import Weights
from kovar.training.judge import EarlyStopping
from kovar.training.method import Full, MethodSettings
from kovar.training.optimizer import AdamW, OptimizerSettings
from kovar.training.padding import PaddingFree
from kovar.training.parallel import DDP, ParallelismSettings
from kovar.training.schedule import Linear, ScheduleSettings
from kovar.training.tasks import TASKS, TaskName


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
    micro_batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        default=None,
        description="padded tokens that one worker passes through the model at a time; gradients "
        "add up until the global batch is done; auto: as many as fit, by measured memory; "
        "absent: all of the worker's share at once",
    )
    weights: Weights = Field(
        default="fp32",
        description="number format that weights are kept in between steps: fp32, or bf16, which "
        "takes less memory and needs precision bf16 or fp8",
    )
    padding_free: PaddingFree = Field(
        default="auto",
        description="pass rows in one line without padding, attending within each: auto where one "
        "kernel does that, true or false",
    )
    learning_rate: float = Field(default=5e-5, gt=0, le=1, description="peak learning rate")
    optimizer: OptimizerSettings = Field(
        default=AdamW(),
        description="adamw, adamw8bit, adafactor or sgd, or a block with such a kind",
    )
    schedule: ScheduleSettings = Field(
        default=Linear(),
        description="learning rate after the warm-up: linear, cosine, cosine_restarts, constant or "
        "plateau, or a block with such a kind",
    )
    warmup: int | float = Field(
        default=0.06,
        ge=0,
        description="steps that warm up: a share (0.06) or a number of them (100)",
    )
    weight_decay: float = Field(
        default=0.01, ge=0, description="decay of weights; norms and biases have none"
    )
    max_gradient_norm: float = Field(default=1.0, gt=0, description="clip above this L2 norm")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of each target spread over all classes"
    )
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="every dropout probability; absent: the model's own"
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="compute activations again in the backward pass: less memory, more time",
    )
    compile: bool = Field(
        default=False,
        description="compile the transformer blocks with torch.compile, once for each padded "
        "length: faster steps after minutes of compiling",
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="evaluate and register a moving average of the weights with this decay",
    )
    metric: str | None = Field(
        default=None,
        description="the evaluation metric that says which step is better; absent: the task's own",
    )
    keep_best: bool = Field(
        default=False, description="register the step with the best evaluation, not the last one"
    )
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="end the run when evaluations stop getting better; implies keep_best",
    )
    seed: int = Field(
        default=0, ge=0, lt=1 << 63, description="decides the batch order, the head and dropout"
    )
    evaluate_every: int | None = Field(
        default=None, ge=1, description="steps between evaluations; at every epoch's end if absent"
    )
    checkpoint_every: int = Field(
        default=100,
        ge=1,
        description="steps that a crash repeats at most; checkpoints are begun a little more often",
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="newest checkpoints kept")

    @model_validator(mode="after")
    def _averages_in_fp32(self) -> TrainingSettings:
        if self.weights == "bf16" and self.ema_decay is not None:
            raise ValueError("ema_decay needs weights: fp32: bf16 would round the average away")
        return self

    @field_validator("compile")
    @classmethod
    def _padded(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("padding_free") is True:
            raise ValueError("compiled models take padded rows: padding_free may not be true")
        return value

    @field_validator("warmup")
    @classmethod
    def _share_or_steps(cls, value: int | float) -> int | float:
        if isinstance(value, float) and value >= 1:
            raise ValueError("a share lies between 0 and 1; 100 is a number of steps")
        return value

    @property
    def keeps_best(self) -> bool:
        """Whether the best step is registered."""
        return self.keep_best or self.early_stopping is not None


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
    method: MethodSettings = Field(
        default=Full(),
        description="which weights move: full, lora or dora, or a block of such a kind",
    )
    data: DataSpec
    training: TrainingSettings = TrainingSettings()
    precision: Precision = Field(default="auto", description="number format of the compute")
    parallelism: ParallelismSettings = Field(
        default=DDP,
        description="how several workers share the model: ddp, fsdp or tensor, or a block with "
        "such a kind",
    )
    resources: Resources = Resources()
    max_failures: int = Field(
        default=3, ge=0, description="worker crashes survived before the run is given up"
    )
    registration: RegistrationSettings = RegistrationSettings()

    @field_validator("data")
    @classmethod
    def _of_the_layout(cls, data: DataSpec, info: ValidationInfo) -> DataSpec:
        task = TASKS.get(info.data.get("task", ""))
        if task is None:
            return data
        reads = LAYOUTS[task.layout].settings
        others = {name for layout in LAYOUTS.values() for name in layout.settings} - reads
        if strangers := sorted(data.model_fields_set & others):
            known = ", ".join(f"data.{name}" for name in sorted(reads))
            raise ValueError(f"{task.name} does not read data.{strangers[0]}; it reads {known}")
        return data

    @field_validator("training")
    @classmethod
    def _known_metric(cls, training: TrainingSettings, info: ValidationInfo) -> TrainingSettings:
        task = TASKS.get(info.data.get("task", ""))
        if task is not None and training.metric not in (None, *task.metrics):
            known = ", ".join(sorted(task.metrics))
            raise ValueError(f"{task.name} has no metric {training.metric!r}; it has {known}")
        return training
