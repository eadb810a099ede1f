"""A version's model and tokenizer, loaded by PyTorch for answering."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kovar.data.tokenizer import TOKENIZER_FILE
from kovar.errors import ModelError
from kovar.models import check_adapter, check_folder, is_adapter, load_adapter, load_classifier

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from kovar.models import BaseModelFiles
    from kovar.precision import ResolvedPrecision


@dataclass(frozen=True)
class TorchModel:
    """What runtimes of PyTorch are made of.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: turns texts into ids, truncated to the model's length.
        files: the checked files, with the labels.
        max_length: tokens that one text may have.
        precision: of the weights.
    """

    model: torch.nn.Module
    tokenizer: Tokenizer
    files: BaseModelFiles
    max_length: int
    precision: str

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


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
    from tokenizers import Tokenizer

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if precision.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    files = check_version(folder, base_folder)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    # The length that a version was trained and evaluated at is its tokenizer's truncation.
    stored = (tokenizer.truncation or {}).get("max_length", files.max_positions)
    max_length = min(stored, files.max_positions)
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    whole = load_adapter(folder, base=files.folder) if base_folder else load_classifier(files)
    model = whole.to(device=device, dtype=precision.torch_dtype).eval()
    return TorchModel(model, tokenizer, files, max_length, precision.precision)


def check_version(folder: Path, base_folder: Path | None) -> BaseModelFiles:
    """Check a version's folder without loading it.

    Raises:
        ModelError: a file is missing or damaged, or an adapter's base is not given.
    """
    if not is_adapter(folder):
        return check_folder(folder, source=str(folder))
    if base_folder is None:
        raise ModelError(
            "the folder holds an adapter, and its base is not given",
            file=folder,
            hint="load it by its version in the registry, which knows the base",
        )
    return check_adapter(folder, base=base_folder)
