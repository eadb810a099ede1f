"""Rows without padding: all tokens of a batch in one line, and attention within each row alone.

The line has shape (1, tokens). Attention is told where rows begin by `cu_seq_lens_q` (int32, row
starts and the end) and `max_length_q` (the longest row), the names under which transformers hands
them through a model (https://huggingface.co/docs/transformers/main/en/attention_interface).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from kovar.data.batches import LADDER

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

ATTENTION: Final = "kovar_varlen"

FIRST_POSITION: Final[Mapping[str, str]] = {
    **dict.fromkeys(("bert", "electra"), "zero"),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), "after padding"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gpt2"), "zero"),
}
"""Model types whose attention goes through transformers' interface, and how each counts the
positions of a row: from zero, or from the number after that of the padding token."""

_WINDOWS: Final[Mapping[str, int]] = {"mistral": 4096}
"""How far tokens see where config.json does not say it."""


def varlen_obstacle(config: Mapping[str, Any]) -> str | None:
    """Return why a model cannot read rows without padding; None when it can.

    Args:
        config: content of config.json.
    """
    kind = str(config.get("model_type"))
    if kind not in FIRST_POSITION:
        return f"{kind} models need padded rows"
    if config.get("position_embedding_type", "absolute") != "absolute":
        return "relative positions need padded rows"
    window = config.get("sliding_window", _WINDOWS.get(kind))
    if window is not None and window < LADDER[-1] and config.get("use_sliding_window", True):
        return f"attention to the last {window:,} tokens alone needs padded rows"
    return None


def first_position(config: Mapping[str, Any]) -> int:
    """Return the position of a row's first token."""
    after_padding = FIRST_POSITION[str(config["model_type"])] == "after padding"
    return int(config["pad_token_id"]) + 1 if after_padding else 0


def read_rows_in_line(model: PreTrainedModel | PeftModel) -> None:
    """Let a model take rows in one line, as well as padded ones.

    Its outputs for tokens come in one line, too; those for rows have shape (rows, …) as always.
    """
    from peft import PeftModel
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, _mask)
    plain: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    plain.set_attn_implementation(ATTENTION)
    if "ForSequenceClassification" not in type(plain).__name__:
        return
    starts: list[torch.Tensor] = []

    def remember(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        found = kwargs.get("cu_seq_lens_q")
        starts[:] = [] if found is None else [found[:-1]]

    def take_first_tokens(module: Any, args: tuple[torch.Tensor, ...]) -> Any:
        return (args[0][0, starts[0].long()][:, None], *args[1:]) if starts else args

    plain.register_forward_pre_hook(remember, with_kwargs=True)
    pooler = getattr(plain.base_model, "pooler", None)
    (plain.classifier if pooler is None else pooler).register_forward_pre_hook(take_first_tokens)


def _mask(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
    """Return no mask for rows in a line; the usual one for padded rows."""
    from transformers.masking_utils import sdpa_mask

    return (
        None
        if attention_mask is None
        else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
    )


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each row; tensors of shape (1, heads, tokens, width) in, (1, tokens, …) out."""
    from transformers.integrations import sdpa_attention

    attend: Callable[..., tuple[torch.Tensor, None]] = sdpa_attention.sdpa_attention_forward
    options = {"dropout": dropout, "scaling": scaling}
    if cu_seq_lens_q is None:
        return attend(module, query, key, value, attention_mask, **options, **kwargs)
    query, key, value = (_as_cast(each) for each in (query, key, value))
    if has_kernel(query, dropout):
        causal = bool(getattr(module, "is_causal", False))
        return _attend_at_once(
            query, key, value, cu_seq_lens_q, max_length_q, scaling, causal
        ), None
    import torch

    sizes = cu_seq_lens_q.diff().tolist()
    rows = zip(*(torch.split(each, sizes, dim=2) for each in (query, key, value)), strict=True)
    found = [attend(module, *row, None, **options)[0] for row in rows]
    return torch.cat(found, dim=1), None


def _as_cast(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in autocast's format, as attention itself takes it.

    Rotary positions leave queries and keys in fp32, which the kernel does not take.
    """
    import torch

    kind = tensor.device.type
    casts = torch.is_autocast_enabled(kind)
    return tensor.to(torch.get_autocast_dtype(kind)) if casts else tensor


def has_kernel(query: torch.Tensor, dropout: float) -> bool:
    """Return whether one kernel attends within all rows at once; else row after row does."""
    return query.is_cuda and query.element_size() == 2 and dropout == 0


def _attend_at_once(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float | None,
    causal: bool,
) -> torch.Tensor:
    """FlashAttention over rows of different lengths (https://arxiv.org/abs/2307.08691)."""
    from torch.nn.attention.varlen import varlen_attn

    found: Any = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        starts,
        starts,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0 if causal else -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    output: torch.Tensor = found[None]
    return output
