"""A version's model and tokenizer, loaded by PyTorch for answering."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.inference.reader import Reader
from kovar.models import load_adapter, load_classifier

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from kovar.models import BaseModelFiles
    from kovar.precision import ResolvedPrecision


@dataclass(frozen=True)
class TorchModel:
    """What runtimes of PyTorch are made of.

    Args:
        model: in evaluation mode, on its device.
        reader: turns texts into ids, and knows the files.
        precision: of the weights.
    """

    model: PreTrainedModel
    reader: Reader
    precision: str

    @property
    def tokenizer(self) -> Tokenizer:
        """Turns texts into ids, truncated to the model's length."""
        return self.reader.tokenizer

    @property
    def files(self) -> BaseModelFiles:
        """The checked files, with the labels."""
        return self.reader.files

    @property
    def max_length(self) -> int:
        """Tokens that one text may have."""
        return self.reader.max_length

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found: torch.device = next(self.model.parameters()).device
        return found


def load_torch_model(
    folder: Path,
    *,
    precision: ResolvedPrecision,
    num_threads: int | None = None,
    device: str = "cpu",
    base_folder: Path | None = None,
) -> TorchModel:
    """Load a version's folder: `model.safetensors`, `config.json`, `tokenizer.json`.

    An adapter is merged into its base, so it answers as fast as a whole model.

    Args:
        folder: the files of the version.
        precision: weights are cast to its number format.
        num_threads: CPU threads of the whole process; torch's own choice when absent.
        device: torch's name of the device, for example `cuda:0`.
        base_folder: the files of the version that an adapter was trained on.

    Raises:
        ModelError: a file is missing or damaged, or the weights do not fit the configuration.
    """
    import torch

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if precision.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    reader = Reader.of(folder, base_folder=base_folder)
    files = reader.files
    whole = load_adapter(folder, base=files.folder) if base_folder else load_classifier(files)
    model = whole.to(device=device, dtype=precision.torch_dtype).eval().requires_grad_(False)
    return TorchModel(model, reader, precision.precision)
