"""Classifiers of texts and of tokens: built from a checked base model, saved as plain files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar.data.tokenizer import TOKENIZER_FILE, load_tokenizer
from kovar.errors import ModelError
from kovar.models.base import CONFIG_FILE, TOKENIZER_FILES, BaseModelFiles
from kovar.models.head import Head, head_of, model_class
from kovar.models.weights import WEIGHTS_FILE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MULTILABEL: Final = "multi_label_classification"
"""What config.json calls a classifier whose texts have any number of labels: `problem_type`."""


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model that is ready to be trained.

    Args:
        model: with its head on.
        fresh: names of the weights that were drawn, since the base has none for them.
        head: names of the modules that adapters leave to be trained in full.
    """

    model: PreTrainedModel
    fresh: frozenset[str] = frozenset()
    head: tuple[str, ...] = ()


def build_classifier(
    base: BaseModelFiles, *, labels: Sequence[str], dropout: float | None = None
) -> PreTrainedModel:
    """Build a classifier; see `build_for_training`, which also says what is new in it."""
    return build_for_training(base, labels=labels, dropout=dropout).model


def build_for_training(
    base: BaseModelFiles,
    *,
    labels: Sequence[str],
    dropout: float | None = None,
    head: Head = "sequence-classification",
    any_labels: bool = False,
) -> BuiltModel:
    """Load the encoder in fp32 and put a classification head with these labels on it.

    The head of a base that was saved with the same labels is kept. A new one is drawn from torch's
    global random generator: seed it first.

    Args:
        base: a checked model folder.
        labels: label names; a label's index is its class.
        dropout: sets every dropout probability of the model; None keeps the model's own.
        head: whether texts or tokens are classified.
        any_labels: whether a text has any number of labels; stored, so that runtimes know it.

    Returns:
        The weights that are new, and a transformers model whose `forward` takes `input_ids` and
        `attention_mask` (int64, of shape (rows, length)) and returns an object with `logits` of
        shape (rows, number of labels), or (rows, length, number of labels) for tokens.

    Raises:
        ModelError: the weights do not fit the configuration.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    if any_labels:
        config.problem_type = MULTILABEL
    if dropout is not None:
        for name in base.architecture.dropouts:
            setattr(config, name, dropout)
    model, missing, mismatched = load_with_config(base.folder, config, head)
    encoder = f"{model.base_model_prefix}."
    absent = sorted(
        key for key in missing | mismatched if key.startswith(encoder) and ".pooler." not in key
    )
    if absent:
        raise ModelError(
            f"{len(absent)} weights of the encoder are absent or of another shape; "
            f"the first is {absent[0]}",
            file=base.folder,
            hint=f"check that {CONFIG_FILE} and the weights belong together",
        )
    own = {name for name in model.state_dict() if not name.startswith(encoder)}
    if base.labels != tuple(labels) and not own <= missing:
        _renew(model, own, head)
        mismatched |= own
    modules = [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    ]
    return BuiltModel(model, frozenset(missing | mismatched), tuple(modules))


def load_with_new_head(folder: Path, *, config_dir: Path) -> BuiltModel:
    """Load a base in fp32 under the configuration of another folder; its head is drawn."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(config_dir, local_files_only=True, trust_remote_code=False)
    head = head_of(config.to_dict()) or "sequence-classification"
    model, missing, mismatched = load_with_config(folder, config, head)
    return BuiltModel(model, frozenset(missing | mismatched))


def load_with_config(
    folder: Path, config: Any, head: Head
) -> tuple[PreTrainedModel, set[str], set[str]]:
    """Return the model, and the names of the weights that are absent or of another shape."""
    import torch

    with quiet():
        model, report = model_class(head).from_pretrained(
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
    return model, set(report["missing_keys"]), mismatched


def load_classifier(base: BaseModelFiles) -> PreTrainedModel:
    """Load a classifier exactly as `save_model` wrote it, at the precision of its weights.

    Raises:
        ModelError: a weight is absent or of another shape; nothing is drawn anew.
    """
    head = head_of(base.config) or "sequence-classification"
    with quiet():
        model, report = model_class(head).from_pretrained(
            base.folder,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise ModelError(
            f"{len(absent)} weights are absent or of another shape; the first is {absent[0]}",
            file=base.folder,
            hint="this folder was not saved as a classifier: fine-tune it first",
        )
    return model


def _renew(model: PreTrainedModel, names: set[str], head: Head) -> None:
    """Draw these weights anew: the file held a head for other classes."""
    fresh = model_class(head).from_config(model.config).state_dict()
    model.load_state_dict({name: fresh[name] for name in names}, strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loading report: a new head is expected, and real faults are raised."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def save_model(
    model: PreTrainedModel,
    base: BaseModelFiles,
    out_dir: Path,
    *,
    max_length: int | None = None,
) -> None:
    """Write the model and its tokenizer; the same weights give the same bytes.

    Args:
        model: the trained classifier, on any device.
        base: what it was built from; its tokenizer files are copied.
        out_dir: folder to fill; created if absent.
        max_length: longest sequence in tokens that it was trained with, stored as the truncation in
            tokenizer.json, where runtimes read it; None means all positions of the model.
    """
    from safetensors.torch import save_model as save_tensors

    out_dir.mkdir(parents=True, exist_ok=True)
    save_tensors(model, str(out_dir / WEIGHTS_FILE), metadata={"format": "pt"})
    write_config(model, out_dir)
    copy_tokenizer(base, out_dir, max_length=max_length)


def copy_tokenizer(base: BaseModelFiles, out_dir: Path, *, max_length: int | None) -> None:
    """Copy the tokenizer of a base, with the longest sequence as its truncation."""
    for name in TOKENIZER_FILES:
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, out_dir / name)
    tokenizer = load_tokenizer(base.folder)
    tokenizer.enable_truncation(max_length or base.max_positions)
    tokenizer.save(str(out_dir / TOKENIZER_FILE))


def write_config(model: PreTrainedModel, out_dir: Path) -> None:
    """Write the configuration; equal models give equal bytes."""
    config: dict[str, Any] = model.config.to_diff_dict()
    # Where the base model happened to lie on this machine is not part of the model.
    config.pop("_name_or_path", None)
    config["architectures"] = [type(model).__name__]
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (out_dir / CONFIG_FILE).write_text(text, encoding="utf-8")
