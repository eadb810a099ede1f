"""Language models: built from a checked base, to predict next tokens or masked ones.

`forward` takes one more argument, `target_positions`: the places, counted through all rows, whose
tokens are to be predicted. The last layer, which multiplies with the whole vocabulary, computes
those alone: prompts, padding and tokens without a mask cost nothing there.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.errors import ModelError
from kovar.models.base import CONFIG_FILE, BaseModelFiles
from kovar.models.classifier import BuiltModel, copy_tokenizer, load_with_config, write_config
from kovar.models.head import Head, head_of
from kovar.models.weights import WEIGHTS_FILE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def build_language_model(
    base: BaseModelFiles, *, head: Head, dropout: float | None = None
) -> BuiltModel:
    """Load a base in fp32 with its language-model head.

    A head that the base lacks (encoders are often saved without) is drawn from torch's global
    random generator: seed it first.

    Args:
        base: a checked model folder.
        head: whether next tokens ("causal-lm") or hidden ones ("masked-lm") are predicted.
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
    model, missing, mismatched = load_with_config(base.folder, config, head)
    absent, body = missing | mismatched, f"{model.base_model_prefix}."
    broken = sorted(name for name in absent if head == "causal-lm" or name.startswith(body))
    if broken:
        raise ModelError(
            f"{len(broken)} weights are absent or of another shape; the first is {broken[0]}",
            file=base.folder,
            hint=f"check that {CONFIG_FILE} and the weights belong together",
        )
    select_targets(model)
    return BuiltModel(model, frozenset(absent))


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


def select_targets(model: PreTrainedModel) -> None:
    """Let the last layer compute the places that `target_positions` names."""
    selection = _Selection(causal=head_of(model.config.to_dict() | _class(model)) == "causal-lm")
    model.register_forward_pre_hook(selection.begin, with_kwargs=True)
    output = model.get_output_embeddings()
    if output is None:
        raise TypeError(f"{type(model).__name__} has no layer onto the vocabulary")
    output.register_forward_pre_hook(selection.select)


def _class(model: PreTrainedModel) -> dict[str, list[str]]:
    return {"architectures": [type(model).__name__]}


class _Selection:
    """The places whose logits one forward pass computes; None for all."""

    def __init__(self, *, causal: bool) -> None:
        self._causal = causal
        self._positions: torch.Tensor | None = None

    def __deepcopy__(self, memo: Any) -> _Selection:
        # An adapter trains a copy of the head, which still belongs to this model.
        return self

    def begin(self, _: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._positions = kwargs.pop("target_positions", None)
        if self._causal:
            # With a cache of keys and values, documents in one row would not be kept apart.
            kwargs.setdefault("use_cache", False)
        return args, kwargs

    def select(self, _: Any, args: tuple[torch.Tensor, ...]) -> Any:
        if self._positions is None:
            return None
        hidden = args[0]
        return (hidden.reshape(-1, hidden.shape[-1])[self._positions], *args[1:])
