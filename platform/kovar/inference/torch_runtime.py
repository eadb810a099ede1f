"""A version run by PyTorch, on a CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.data.tokenizer import TOKENIZER_FILE
from kovar.errors import ModelError
from kovar.inference.runtime import Encoded, Prediction, Runtime
from kovar.models import (
    check_adapter,
    check_folder,
    is_adapter,
    load_adapter,
    load_classifier,
)

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from kovar.models import BaseModelFiles
    from kovar.precision import ResolvedPrecision


class TorchRuntime(Runtime):
    """A sequence classifier under `torch.inference_mode`, with fused attention (sdpa).

    Args:
        model: the classifier, in evaluation mode, on its device.
        tokenizer: turns texts into ids, truncated to the model's length.
        labels: names in the order of the model's outputs.
        max_length: tokens that one text may have.
        pad_id: the token that fills short rows.
        precision: the precision of `model`'s weights.
    """

    name = "torch"

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        *,
        labels: tuple[str, ...],
        max_length: int,
        pad_id: int,
        precision: str,
    ) -> None:
        self.labels = labels
        self.max_length = max_length
        self.precision = precision
        self._model = model
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._device = next(model.parameters()).device

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        precision: ResolvedPrecision,
        num_threads: int | None = None,
        device: str = "cpu",
        base_folder: Path | None = None,
    ) -> TorchRuntime:
        """Load a version's folder: `model.safetensors`, `config.json`, `tokenizer.json`.

        An adapter is merged into its base, so it answers as fast as a whole model.

        Args:
            folder: the files of the version.
            base_folder: the files of the version that an adapter was trained on.
            precision: weights are cast to its number format.
            num_threads: CPU threads of the whole process; torch's own choice when absent.
            device: torch's name of the device, for example `cuda:0`.

        Raises:
            ModelError: a file is missing or damaged, or the weights do not fit the configuration.
        """
        import torch
        from tokenizers import Tokenizer

        if num_threads is not None:
            torch.set_num_threads(num_threads)
        if precision.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        base = _check(folder, base_folder)
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        # The length that a version was trained and evaluated at is its tokenizer's truncation.
        stored = (tokenizer.truncation or {}).get("max_length", base.max_positions)
        max_length = min(stored, base.max_positions)
        tokenizer.enable_truncation(max_length)
        tokenizer.no_padding()
        whole = load_adapter(folder, base=base.folder) if base_folder else load_classifier(base)
        model = whole.to(device=device, dtype=precision.torch_dtype).eval()
        return cls(
            model,
            tokenizer,
            labels=base.labels,
            max_length=max_length,
            pad_id=base.pad_id,
            precision=precision.precision,
        )

    def tokenize(self, texts: Sequence[str]) -> list[Encoded]:
        """Turn texts into token ids; the library releases the GIL meanwhile."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return [Encoded(tuple(item.ids), truncated=bool(item.overflowing)) for item in encodings]

    def run(self, batch: Sequence[Encoded]) -> list[Prediction]:
        """Predict one batch, padded to its longest row; see `Runtime.run`."""
        import torch

        ids, mask = self._padded(batch)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask).logits
            table = torch.softmax(logits.float(), dim=-1).cpu()
        if not torch.isfinite(table).all():
            raise FloatingPointError("the model's output is not finite")
        return [
            self._prediction(row, item) for row, item in zip(table.tolist(), batch, strict=True)
        ]

    def _padded(self, batch: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor | None]:
        import numpy as np
        import torch

        lengths = np.array([item.length for item in batch])
        ids = np.full((len(batch), lengths.max()), self._pad_id, dtype=np.int64)
        for row, item in zip(ids, batch, strict=True):
            row[: item.length] = item.ids
        padded = torch.from_numpy(ids).to(self._device)
        if lengths.min() == lengths.max():
            return padded, None  # Attention without a mask takes the faster kernel.
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        return padded, torch.from_numpy(mask.astype(np.int64)).to(self._device)

    def _prediction(self, scores: list[float], encoded: Encoded) -> Prediction:
        best = max(range(len(scores)), key=scores.__getitem__)
        return Prediction(
            label=self.labels[best],
            score=scores[best],
            scores=dict(zip(self.labels, scores, strict=True)),
            truncated=encoded.truncated,
        )


def _check(folder: Path, base_folder: Path | None) -> BaseModelFiles:
    if not is_adapter(folder):
        return check_folder(folder, source=str(folder))
    if base_folder is None:
        raise ModelError(
            "the folder holds an adapter, and its base is not given",
            file=folder,
            hint="load it by its version in the registry, which knows the base",
        )
    return check_adapter(folder, base=base_folder)
