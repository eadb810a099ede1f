"""A version run by PyTorch, on a CPU or a CUDA device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.errors import ModelError
from kovar.inference.runtime import Encoded, Prediction, Runtime

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

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
        max_length: int | None = None,
        num_threads: int | None = None,
        device: str = "cpu",
    ) -> TorchRuntime:
        """Load a version's folder: `model.safetensors`, `config.json`, `tokenizer.json`.

        Args:
            folder: the files of the version.
            precision: weights are cast to its number format.
            max_length: tokens read of one text, as trained; what `tokenizer.json` says when absent.
            num_threads: CPU threads of the whole process; torch's own choice when absent.
            device: torch's name of the device, for example `cuda:0`.

        Raises:
            ModelError: a file is missing, or the weights do not fit the configuration.
        """
        import torch

        if num_threads is not None:
            torch.set_num_threads(num_threads)
        config = _read_config(folder)
        tokenizer, max_length = _read_tokenizer(folder, config, max_length)
        model = _read_model(folder).to(device=device, dtype=precision.torch_dtype).eval()
        return cls(
            model,
            tokenizer,
            labels=_labels(config, folder),
            max_length=max_length,
            pad_id=config.get("pad_token_id") or 0,
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


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError("the folder holds no config.json", file=folder) from None
    except ValueError:
        raise ModelError("not valid JSON", file=folder / "config.json") from None
    return config


def _labels(config: dict[str, Any], folder: Path) -> tuple[str, ...]:
    names = config.get("id2label") or {}
    if len(names) < 2:
        raise ModelError(
            "not a classifier: it needs at least two labels",
            file=folder / "config.json",
            field="id2label",
        )
    return tuple(names[str(index)] for index in range(len(names)))


def _read_tokenizer(
    folder: Path, config: dict[str, Any], max_length: int | None
) -> tuple[Tokenizer, int]:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError("the folder holds no tokenizer.json", file=folder)
    tokenizer = Tokenizer.from_file(str(path))
    stored = max_length or (tokenizer.truncation or {}).get("max_length")
    limits = [limit for limit in (stored, config.get("max_position_embeddings")) if limit]
    if not limits:
        raise ModelError("nothing says how long a text may be", file=path, field="truncation")
    tokenizer.enable_truncation(min(limits))
    tokenizer.no_padding()
    return tokenizer, min(limits)


def _read_model(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForSequenceClassification

    if not (folder / "model.safetensors").is_file():
        raise ModelError("the folder holds no model.safetensors", file=folder)
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder,
        attn_implementation="sdpa",
        local_files_only=True,
        output_loading_info=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise ModelError(
            f"{len(absent)} weights are absent or of another shape, the first is {absent[0]}",
            file=folder / "model.safetensors",
        )
    classifier: torch.nn.Module = model
    return classifier
