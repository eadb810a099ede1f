"""Which weights move: all, all but some, or those of a small adapter on top."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from kovar.config import Config, name_as_kind
from kovar.errors import SpecError
from kovar.models import check_peft, put_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from kovar.models import BuiltModel


class Full(Config):
    """Every weight moves, but for those that are frozen."""

    kind: Literal["full"] = Field(default="full", description="names this method")
    freeze: tuple[str, ...] = Field(
        default=(),
        description="weights that stay as they are: names or patterns such as embeddings or "
        "encoder.layer.[0-3]",
    )


class Lora(Config):
    """The head and low-rank changes of linear layers move (arXiv 2106.09685), through peft."""

    kind: Literal["lora"] = Field(default="lora", description="names this method")
    rank: int = Field(default=8, ge=1, description="rank of each change")
    alpha: float = Field(default=16, gt=0, description="changes are scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout before each change")
    target_modules: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="linear layers that are changed, by the end of their names (query, value); "
        "absent: all but the head",
    )
    merge: bool = Field(
        default=False, description="register the adapter merged into its base as well"
    )


class Dora(Lora):
    """LoRA that learns the size of each change by itself (arXiv 2402.09353)."""

    kind: Literal["dora"] = Field(  # type: ignore[assignment]
        default="dora", description="names this method"
    )


MethodSettings = Annotated[
    Annotated[Full | Lora | Dora, Field(discriminator="kind")], BeforeValidator(name_as_kind)
]


def check_method(settings: MethodSettings) -> None:
    """Refuse an adapter where peft is not installed.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    if isinstance(settings, Lora):
        check_peft()


def apply_method(built: BuiltModel, settings: MethodSettings) -> PreTrainedModel | PeftModel:
    """Return the model in which exactly the weights that the method trains need gradients.

    Raises:
        SpecError: a pattern that no weight or layer matches, or nothing is left to train.
        MissingExtraError: an adapter without peft.
    """
    if isinstance(settings, Lora):
        return _adapted(built, settings)
    _freeze(built, settings.freeze)
    return built.model


def _freeze(built: BuiltModel, patterns: Sequence[str]) -> None:
    model = built.model
    prefix = f"{model.base_model_prefix}."
    names = dict(model.named_parameters())
    for pattern in patterns:
        found = [
            name
            for name in names
            if _matches(name, pattern) or _matches(name.removeprefix(prefix), pattern)
        ]
        if not found:
            raise SpecError(
                "no weight has such a name",
                field="method.freeze",
                got=pattern,
                allowed=f"for example {', '.join(list(names)[:3])}",
            )
        for name in found:
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise SpecError("nothing is left to train", field="method.freeze", got=", ".join(patterns))


def _matches(name: str, pattern: str) -> bool:
    """Return whether a pattern names a weight or the module that holds it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _adapted(built: BuiltModel, settings: Lora) -> PreTrainedModel | PeftModel:
    from torch.nn import Linear

    trained = {*built.head, *(name.rpartition(".")[0] for name in built.fresh)}
    # What a module outside holds is trained with it: bert.pooler covers bert.pooler.dense.
    whole = sorted(name for name in trained if not any(name.startswith(f"{o}.") for o in trained))
    output = built.model.get_output_embeddings()
    layers = [
        name
        for name, module in built.model.named_modules()
        if isinstance(module, Linear)
        and module is not output
        and not any(name == other or name.startswith(f"{other}.") for other in whole)
    ]
    if not layers:
        raise SpecError(
            f"adapters change linear layers, and {built.model.config.model_type} has none",
            field="method.kind",
            got=settings.kind,
            allowed="full",
            hint="or choose a model of another family",
        )
    return put_adapter(
        built.model,
        {
            "r": settings.rank,
            "lora_alpha": settings.alpha,
            "lora_dropout": settings.dropout,
            "use_dora": isinstance(settings, Dora),
            "target_modules": _targets(layers, settings.target_modules),
            "modules_to_save": whole,
        },
    )


def _targets(layers: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Return the full names of the layers to change."""
    if wanted is None:
        return list(layers)
    for end in wanted:
        if not any(name == end or name.endswith(f".{end}") for name in layers):
            ends = sorted({name.rpartition(".")[2] for name in layers})
            raise SpecError(
                "no linear layer has a name that ends so",
                field="method.target_modules",
                got=end,
                allowed=", ".join(ends),
            )
    return [name for name in layers if any(name == e or name.endswith(f".{e}") for e in wanted)]
