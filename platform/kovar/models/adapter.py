"""Adapters: small trained weights that are loaded onto the base that they were trained on.

A folder holds peft's own files (`adapter_config.json`, `adapter_model.safetensors`), so peft loads
it too, beside the configuration and the tokenizer of the model that results.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.errors import MissingExtraError, ModelError
from kovar.models.base import CONFIG_FILE, BaseModelFiles, check_folder
from kovar.models.classifier import copy_tokenizer, load_with_new_head, write_config

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
# What an adapter is, of the many fields of peft's configuration; no other is read from a file.
_FIELDS: Final = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_dora",
    "target_modules",
    "modules_to_save",
)


def check_peft() -> None:
    """Refuse adapters where peft is not installed, without importing it.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise MissingExtraError.of("peft", needed_for="an adapter (LoRA, DoRA)")


def is_adapter(folder: Path) -> bool:
    """Return whether a version's folder holds an adapter alone."""
    return (folder / ADAPTER_CONFIG).is_file()


def put_adapter(model: PreTrainedModel, fields: dict[str, Any]) -> PeftModel:
    """Freeze a model and put a trainable adapter on it; new weights come from torch's generator.

    Args:
        model: the whole model.
        fields: `r`, `lora_alpha`, `lora_dropout`, `use_dora`, `target_modules` (module names) and
            `modules_to_save` (modules that are trained in full), as peft calls them.
    """
    check_peft()
    with _without_warnings():
        from peft import LoraConfig, get_peft_model

        adapted: PeftModel = get_peft_model(model, LoraConfig(**fields))
    return adapted


def save_adapter(
    model: PeftModel, base: BaseModelFiles, out_dir: Path, *, max_length: int | None = None
) -> None:
    """Write the adapter, the model's configuration and its tokenizer; never the base's weights.

    The same weights give the same bytes.

    Args:
        model: trained, as `put_adapter` returned it, on any device.
        base: what it was trained on; its tokenizer files are copied.
        out_dir: folder to fill; created if absent.
        max_length: see `save_model`.
    """
    from safetensors.torch import save_file

    out_dir.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in _tensors(model).items()}
    save_file(tensors, out_dir / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    settings = model.peft_config["default"]
    fields = {name: getattr(settings, name) for name in _FIELDS}
    fields["target_modules"] = sorted(fields["target_modules"])
    fields |= {"peft_type": "LORA", "base_model_name_or_path": base.source, "inference_mode": True}
    text = json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False)
    (out_dir / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
    write_config(model.get_base_model(), out_dir)
    copy_tokenizer(base, out_dir, max_length=max_length)


def check_adapter(folder: Path, *, base: Path) -> BaseModelFiles:
    """Check an adapter's folder and its base without loading them.

    Returns:
        The base's files with the adapter's configuration: its labels.

    Raises:
        ModelError: a file is missing or damaged.
    """
    found = check_folder(base, source=str(base))
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError) as problem:
        raise ModelError(f"damaged: {problem}", file=folder / CONFIG_FILE) from None
    return replace(found, config=config)


@dataclass(frozen=True)
class StoredAdapter:
    """What an adapter's files hold.

    Args:
        fields: as `put_adapter` takes them.
        tensors: by peft's names.
    """

    fields: dict[str, Any]
    tensors: dict[str, Any]


def read_adapter(folder: Path) -> StoredAdapter:
    """Read an adapter's own files.

    Args:
        folder: as `save_adapter` wrote it.

    Raises:
        ModelError: a file is missing or damaged.
    """
    from safetensors.torch import load_file

    try:
        stored = json.loads((folder / ADAPTER_CONFIG).read_bytes())
        fields = {name: stored[name] for name in _FIELDS}
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    except Exception as problem:  # safetensors raises an exception of its own
        raise ModelError(f"damaged adapter: {problem}", file=folder / ADAPTER_CONFIG) from None
    return StoredAdapter(fields, tensors)


def load_adapter(folder: Path, *, base: Path) -> PreTrainedModel:
    """Load a base in fp32 and merge an adapter into its weights.

    Args:
        folder: as `save_adapter` wrote it.
        base: the folder of the base that it was trained on.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: a file is damaged, or the adapter belongs to another base.
    """
    import torch

    check_peft()
    stored = read_adapter(folder)
    fields = stored.fields
    with torch.random.fork_rng(devices=[]):
        built = load_with_new_head(base, config_dir=folder)
        try:
            model = put_adapter(built.model, fields)
        except ValueError as problem:
            raise another_base(folder, str(problem)) from None
    _fill(model, stored.tensors, folder)
    saved = tuple(f"{name}." for name in fields["modules_to_save"])
    absent = sorted(name for name in built.fresh if not name.startswith(saved))
    if absent:
        raise another_base(folder, f"the base lacks {absent[0]}")
    merged: PreTrainedModel = model.merge_and_unload()
    return merged


def _fill(model: PeftModel, tensors: dict[str, Any], folder: Path) -> None:
    from peft import set_peft_model_state_dict

    expected = {name: tensor.shape for name, tensor in _tensors(model).items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if expected != found:
        name = min(expected.items() ^ found.items())[0]
        raise another_base(folder, f"{name} is absent or of another shape")
    with _without_warnings():
        set_peft_model_state_dict(model, tensors)


def _tensors(model: PeftModel) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    tensors: dict[str, Any] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return tensors


def another_base(folder: Path, what: str) -> ModelError:
    """Build (not raise) the error of an adapter that was trained on another base."""
    return ModelError(
        f"the adapter does not fit its base: {what}", file=folder, hint="it was trained on another"
    )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence what peft asks of transformers under names that are deprecated there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
