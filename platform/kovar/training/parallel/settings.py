"""How several workers share one model: its settings, and what cannot be shared so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from kovar.config import Config, name_as_kind
from kovar.errors import SpecError

if TYPE_CHECKING:
    from kovar.training.spec import FineTuneSpec


class Ddp(Config):
    """Every worker holds the whole model; gradients are averaged (torch's DDP)."""

    kind: Literal["ddp"] = Field(default="ddp", description="names this parallelism")
    gradient_compression: Literal["bf16"] | None = Field(
        default=None,
        description="number format in which gradients travel: bf16 halves the traffic and rounds "
        "them; absent: as they are",
    )


class Fsdp(Config):
    """Weights, gradients and optimizer state are cut over the workers (torch's FSDP2)."""

    kind: Literal["fsdp"] = Field(default="fsdp", description="names this parallelism")
    tensor_size: int = Field(
        default=1,
        ge=1,
        description="workers that compute each layer together; above 1 the workers form a grid of "
        "num_workers / tensor_size rows",
    )
    reshard: bool = Field(
        default=True,
        description="let go of a block's gathered weights after its forward pass: less memory, "
        "more traffic",
    )


class TensorParallel(Config):
    """All workers compute each layer together, by the model's own plan in transformers."""

    kind: Literal["tensor"] = Field(default="tensor", description="names this parallelism")


ParallelismSettings = Annotated[
    Annotated[Ddp | Fsdp | TensorParallel, Field(discriminator="kind")],
    BeforeValidator(name_as_kind),
]

DDP: Final = Ddp()

TENSOR_ARCHITECTURES: Final = frozenset({"gemma", "llama", "mistral", "qwen2", "qwen3"})
"""Architectures of which transformers has a plan, as config.json names them."""


def tensor_size(settings: ParallelismSettings, num_workers: int) -> int:
    """Return how many workers compute each layer together."""
    match settings:
        case Fsdp():
            return settings.tensor_size
        case TensorParallel():
            return num_workers
        case Ddp():
            return 1


def num_shares(settings: ParallelismSettings, num_workers: int) -> int:
    """Return into how many shares each batch is dealt."""
    return num_workers // tensor_size(settings, num_workers)


def num_shards(settings: ParallelismSettings, num_workers: int) -> int:
    """Return into how many parts weights and optimizer state are cut."""
    return 1 if isinstance(settings, Ddp) else num_workers


def check_parallelism(spec: FineTuneSpec) -> None:
    """Refuse what the workers cannot share so, from the spec alone.

    Raises:
        SpecError: naming the field at fault.
    """
    from kovar.training.method import Lora
    from kovar.training.optimizer import AdamW8bit

    settings, workers = spec.parallelism, spec.resources.num_workers
    if isinstance(settings, Ddp):
        return
    if isinstance(spec.training.optimizer, AdamW8bit):
        raise SpecError(
            f"bitsandbytes cannot update weights that {settings.kind} has cut",
            field="training.optimizer",
            got="adamw8bit",
            allowed="adamw, adafactor, sgd",
        )
    if spec.training.weights == "bf16":
        raise SpecError(
            f"weights that {settings.kind} has cut stay in fp32; they travel in bf16",
            field="training.weights",
            got="bf16",
            allowed="fp32",
        )
    if spec.precision == "fp8":
        raise SpecError(
            f"layers that {settings.kind} has cut are not multiplied in fp8",
            field="precision",
            got="fp8",
            allowed="bf16, tf32, fp32, auto",
        )
    size = tensor_size(settings, workers.max)
    if size == 1:
        return
    if isinstance(spec.method, Lora):
        raise SpecError(
            "adapters do not know layers that several workers compute",
            field="method.kind",
            got=spec.method.kind,
            allowed="full",
            hint="use parallelism: fsdp without tensor_size",
        )
    if workers.min != workers.max:
        raise SpecError(
            "workers that compute layers together cannot be fewer at times",
            field="resources.num_workers",
            got=f"{workers.min} to {workers.max}",
            allowed="one number",
        )
    if workers.max % size:
        raise SpecError(
            "the workers do not form a grid",
            field="parallelism.tensor_size",
            got=size,
            allowed=f"a divisor of {workers.max} workers",
        )


def check_tensor_plan(spec: FineTuneSpec, config: Mapping[str, Any]) -> None:
    """Refuse a model whose layers several workers cannot compute together.

    Args:
        spec: the run.
        config: the base model's config.json.

    Raises:
        SpecError: transformers has no plan for it, or its heads do not go round.
    """
    size = tensor_size(spec.parallelism, spec.resources.num_workers.max)
    if size == 1:
        return
    kind = config.get("model_type")
    field, got = "parallelism.tensor_size", str(size)
    if isinstance(spec.parallelism, TensorParallel):
        field, got = "parallelism.kind", f"tensor, over {size} workers"
    if kind not in TENSOR_ARCHITECTURES:
        raise SpecError(
            f"transformers has no tensor-parallel plan for {kind} models",
            field=field,
            got=got,
            allowed=f"models of {', '.join(sorted(TENSOR_ARCHITECTURES))}",
            hint="use parallelism: fsdp without tensor_size",
        )
    heads = int(config["num_attention_heads"])
    keys = int(config.get("num_key_value_heads") or heads)
    if heads % size or keys % size:
        raise SpecError(
            "the attention heads cannot be dealt equally",
            field=field,
            got=got,
            allowed=f"a divisor of {heads} heads and {keys} key-value heads",
        )
