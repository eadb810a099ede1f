"""Why a label: integrated gradients over the token embeddings (https://arxiv.org/abs/1703.01365)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kovar.inference.runtime import Encoded
from kovar.inference.torch_model import TorchModel

if TYPE_CHECKING:
    import torch

NUM_STEPS: Final = 32
"""Points on the way from padding to the text, by the midpoint rule, that gradients are taken at."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What the tokens of one text did for its likeliest label.

    Attributes:
        weights: one for each token; 0 for special ones.
        scores: the probability of every label.
    """

    weights: tuple[float, ...]
    scores: tuple[float, ...]


class Attributor:
    """Explains the answers of a classifier of texts.

    Args:
        loaded: the classifier, in fp32: gradients in 16 bits are mostly rounding.
        num_steps: more are more exact and slower.
    """

    def __init__(self, loaded: TorchModel, *, num_steps: int = NUM_STEPS) -> None:
        self._reader = loaded.reader
        self._device = loaded.device
        self._model: Any = loaded.model
        self._num_steps = num_steps

    def weights(self, item: Encoded) -> Weights:
        """Explain the likeliest label of one text.

        Raises:
            FloatingPointError: the model's output or a gradient is not finite.
        """
        import torch

        start, end, extra = self._ends(item)
        with torch.no_grad():
            final = self._log_probabilities(end, extra)[0]
        label = int(final.argmax())
        points = (torch.arange(self._num_steps, device=self._device) + 0.5) / self._num_steps
        path = (start + points[:, None, None] * (end - start)).requires_grad_()
        with torch.enable_grad():
            along = self._log_probabilities(path, extra)[:, label].sum()
            (gradient,) = torch.autograd.grad(along, path)
        weights = ((end - start)[0] * gradient.mean(dim=0)).sum(dim=-1)
        if not (torch.isfinite(weights).all() and torch.isfinite(final).all()):
            raise FloatingPointError("the model's output is not finite")
        return Weights(tuple(weights.tolist()), tuple(final.exp().tolist()))

    def _ends(self, item: Encoded) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Return the embeddings of padding between special tokens, and those of the text."""
        import torch

        special, pad = self._reader.special_ids, self._reader.files.pad_id
        empty = [id_ if id_ in special else pad for id_ in item.ids]
        with torch.no_grad():
            rows = torch.tensor([empty, item.ids], device=self._device)
            start, end = self._model.get_input_embeddings()(rows).split(1)
        extra: dict[str, torch.Tensor] = {}
        if item.second is not None and self._reader.has_types:
            types = torch.arange(item.length, device=self._device) >= item.second
            extra["token_type_ids"] = types.long()[None]
        return start, end, extra

    def _log_probabilities(
        self, embedded: torch.Tensor, extra: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the log-probability of every label, shape (rows, labels)."""
        from torch.nn.functional import logsigmoid

        shared = {name: ids.expand(len(embedded), -1) for name, ids in extra.items()}
        logits = self._model(inputs_embeds=embedded, **shared).logits.float()
        found: torch.Tensor = (
            logsigmoid(logits) if self._reader.any_labels else logits.log_softmax(dim=-1)
        )
        return found
