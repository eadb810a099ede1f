"""A version run by PyTorch, on a CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kovar.inference.runtime import Encoded, Prediction, Runtime, Text
from kovar.inference.torch_model import TorchModel
from kovar.models import MULTILABEL

if TYPE_CHECKING:
    import torch


class TorchRuntime(Runtime):
    """A classifier of texts under `torch.inference_mode`, with fused attention (sdpa).

    Args:
        loaded: the classifier and its tokenizer.
    """

    name = "torch"

    def __init__(self, loaded: TorchModel) -> None:
        self.labels = loaded.files.labels
        self.max_length = loaded.max_length
        self.precision = loaded.precision
        self.any_labels = loaded.files.config.get("problem_type") == MULTILABEL
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._pad_id = loaded.files.pad_id
        self._has_types = loaded.files.config.get("type_vocab_size", 0) > 1
        self._device = loaded.device

    def tokenize(self, texts: Sequence[Text]) -> list[Encoded]:
        """Turn texts into token ids; the library releases the GIL meanwhile."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return [
            Encoded(
                tuple(item.ids),
                truncated=bool(item.overflowing),
                second=item.type_ids.index(1) if 1 in item.type_ids else None,
            )
            for item in encodings
        ]

    def run(self, batch: Sequence[Encoded]) -> list[Prediction]:
        """Predict one batch, padded to its longest row; see `Runtime.run`."""
        import torch

        with torch.inference_mode():
            logits = self._model(**self._padded(batch)).logits.float()
            table = (logits.sigmoid() if self.any_labels else logits.softmax(dim=-1)).cpu()
        if not torch.isfinite(table).all():
            raise FloatingPointError("the model's output is not finite")
        return [
            self._prediction(row, item) for row, item in zip(table.tolist(), batch, strict=True)
        ]

    def _padded(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor | None]:
        import numpy as np
        import torch

        lengths = np.array([item.length for item in batch])
        ids = np.full((len(batch), lengths.max()), self._pad_id, dtype=np.int64)
        for row, item in zip(ids, batch, strict=True):
            row[: item.length] = item.ids
        places = np.arange(lengths.max())
        inputs: dict[str, torch.Tensor | None] = {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": None,  # Attention without a mask takes the faster kernel.
        }
        if lengths.min() != lengths.max():
            mask = (places < lengths[:, None]).astype(np.int64)
            inputs["attention_mask"] = torch.from_numpy(mask).to(self._device)
        if self._has_types and any(item.second is not None for item in batch):
            starts = np.array(
                [item.length if item.second is None else item.second for item in batch]
            )
            types = (places >= starts[:, None]) & (places < lengths[:, None])
            inputs["token_type_ids"] = torch.from_numpy(types.astype(np.int64)).to(self._device)
        return inputs

    def _prediction(self, scores: list[float], encoded: Encoded) -> Prediction:
        best = max(range(len(scores)), key=scores.__getitem__)
        return Prediction(
            label=self.labels[best],
            score=scores[best],
            scores=dict(zip(self.labels, scores, strict=True)),
            truncated=encoded.truncated,
        )
