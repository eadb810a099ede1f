"""Language models: built from a checked base, to predict next tokens or masked ones.

`forward` takes one more argument, `target_positions`: the places, counted through all rows, whose
tokens are to be predicted. The last layer, which multiplies with the whole vocabulary, computes
those alone: prompts, padding and tokens without a mask cost nothing there.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kovar.errors import ModelError
from kovar.models.base import BaseModelFiles
from kovar.models.classifier import BuiltModel, copy_tokenizer, quiet, write_config
from kovar.models.weights import WEIGHTS_FILE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Objective = Literal["causal", "masked"]


def build_language_model(
    base: BaseModelFiles, *, objective: Objective, dropout: float | None = None
) -> BuiltModel:
    """Load a base in fp32 with its language-model head.

    A head that the base lacks (encoders are often saved without) is drawn from torch's global
    random generator: seed it first.

    Args:
        base: a checked model folder.
        objective: whether next tokens or masked tokens are predicted.
        dropout: sets every dropout probability of the model; None keeps the model's own.

    Returns:
        A transformers model whose `forward` takes `input_ids` (int64, shape (rows, length)) and
        optionally `attention_mask`, `position_ids` and `target_positions` (int64, shape
        (targets)). It returns an object with `logits` of shape (targets, vocabulary), or
        (rows, length, vocabulary) without `target_positions`.

    Raises:
        ModelError: the weights do not fit the configuration.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
    if dropout is not None:
        for name in base.architecture.dropouts:
            if hasattr(config, name):
                setattr(config, name, dropout)
    model, absent = _load(base.folder, objective, config=config)
    body = f"{model.base_model_prefix}."
    broken = sorted(name for name in absent if name.startswith(body))
    if broken or (absent and objective == "causal"):
        raise _incomplete(base.folder, broken or sorted(absent))
    return BuiltModel(_select_targets(model, objective), frozenset(absent))


def load_language_model(base: BaseModelFiles, *, objective: Objective) -> PreTrainedModel:
    """Load a language model exactly as `save_language_model` wrote it.

    Raises:
        ModelError: a weight is absent or of another shape; nothing is drawn anew.
    """
    model, absent = _load(base.folder, objective)
    if absent:
        raise _incomplete(base.folder, sorted(absent))
    return _select_targets(model, objective)


def save_language_model(
    model: PreTrainedModel, base: BaseModelFiles, out_dir: Path, *, max_length: int | None = None
) -> None:
    """Write the model and its tokenizer; the same weights give the same bytes.

    Weights that are tied to others are written once, under the name that transformers ties to.

    Args:
        model: trained, on any device.
        base: what it was built from; its tokenizer files are copied.
        out_dir: folder to fill; created if absent.
        max_length: see `save_model`.
    """
    from safetensors.torch import save_file

    out_dir.mkdir(parents=True, exist_ok=True)
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    save_file(tensors, out_dir / WEIGHTS_FILE, metadata={"format": "pt"})
    write_config(model, out_dir)
    copy_tokenizer(base, out_dir, max_length=max_length)
    generation = base.folder / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, out_dir / generation.name)


def _load(
    folder: Path, objective: Objective, *, config: Any = None
) -> tuple[PreTrainedModel, set[str]]:
    """Return the model in fp32, and the names of the weights that are absent or do not fit."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    kind: Any = AutoModelForCausalLM if objective == "causal" else AutoModelForMaskedLM
    with quiet():
        model, report = kind.from_pretrained(
            folder,
            config=config,
            attn_implementation="sdpa",
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    mismatched = {key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]}
    return model, set(report["missing_keys"]) | mismatched


def _incomplete(folder: Path, absent: list[str]) -> ModelError:
    return ModelError(
        f"{len(absent)} weights are absent or of another shape; the first is {absent[0]}",
        file=folder,
        hint="check that config.json and the weights belong together",
    )


def _select_targets(model: PreTrainedModel, objective: Objective) -> PreTrainedModel:
    """Let the last layer compute the places that `target_positions` names."""
    selection = _Selection(objective)
    model.register_forward_pre_hook(selection.begin, with_kwargs=True)
    output = model.get_output_embeddings()
    if output is None:
        raise TypeError(f"{type(model).__name__} has no layer onto the vocabulary")
    output.register_forward_pre_hook(selection.select)
    return model


class _Selection:
    """The places whose logits one forward pass computes; None for all."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._positions: torch.Tensor | None = None

    def __deepcopy__(self, memo: Any) -> _Selection:
        # An adapter trains a copy of the head, which still belongs to this model.
        return self

    def begin(self, _: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._positions = kwargs.pop("target_positions", None)
        if self._objective == "causal":
            # With a cache of keys and values, documents in one row would not be kept apart.
            kwargs.setdefault("use_cache", False)
        return args, kwargs

    def select(self, _: Any, args: tuple[torch.Tensor, ...]) -> Any:
        if self._positions is None:
            return None
        hidden = args[0]
        return (hidden.reshape(-1, hidden.shape[-1])[self._positions], *args[1:])
