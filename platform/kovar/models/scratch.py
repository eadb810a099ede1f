"""Models from scratch: drawn weights and a tokenizer trained on the data, as a base like others.

The folder is made once and kept in the cache, so whatever starts from a base (adapters, further
runs, the registry) needs to know nothing of where this one came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Final

from kovar.config import canonical_json
from kovar.data.cache import ensure_folder
from kovar.data.vocabulary import TokenizerSettings, write_tokenizer
from kovar.errors import ModelError, did_you_mean
from kovar.models.base import SCRATCH, BaseModelFiles, check_folder
from kovar.models.classifier import quiet, write_config
from kovar.models.weights import WEIGHTS_FILE

_PACKAGES: Final = ("torch", "transformers", "tokenizers")
"""Their versions can change what is drawn or trained here."""


def scratch_base(
    config: Mapping[str, Any],
    tokenizer: TokenizerSettings,
    *,
    texts: Callable[[], Iterable[str]],
    texts_digest: str,
    decoder: bool,
    seed: int,
    cache_dir: Path,
) -> BaseModelFiles:
    """Train a tokenizer, draw the weights, and return the folder; or find it in the cache.

    Args:
        config: fields of transformers' configuration, `model_type` among them.
        tokenizer: how the tokenizer is trained.
        texts: the training texts; called only when they are needed.
        texts_digest: SHA-256 of the texts.
        decoder: whether the model writes text, so that its last layer is part of it.
        seed: of the weights.
        cache_dir: the cache folder of the settings.

    Raises:
        ModelError: a field that the architecture does not have, or a value that it refuses.
        DataError: the texts are empty.
    """
    identity = {
        "config": dict(config),
        "tokenizer": tokenizer.model_dump(mode="json"),
        "texts": texts_digest,
        "decoder": decoder,
        "seed": seed,
        "packages": {name: installed_version(name) for name in _PACKAGES},
    }
    folder = cache_dir / "scratch" / hashlib.sha256(canonical_json(identity)).hexdigest()

    def build(partial: Path) -> dict[str, Any]:
        facts = write_tokenizer(partial, texts(), tokenizer, decoder=decoder)
        _write_model(partial, {**config, **facts}, decoder=decoder, seed=seed)
        return {"seed": seed}

    _check_fields(config)
    ensure_folder(folder, build=build)
    return check_folder(folder, source=SCRATCH)


def _check_fields(config: Mapping[str, Any]) -> None:
    """Refuse fields that transformers would keep without ever reading them."""
    from transformers import AutoConfig

    known = AutoConfig.for_model(config["model_type"])
    for name in config:
        if not hasattr(known, name):
            names = sorted(known.to_dict())
            raise ModelError(
                f"{config['model_type']} has no such setting",
                field=f"model.config.{name}",
                got=name,
                allowed=", ".join(names),
                hint=did_you_mean(name, names),
            )


def _write_model(folder: Path, config: Mapping[str, Any], *, decoder: bool, seed: int) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    kind: Any = AutoModelForCausalLM if decoder else AutoModel
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        try:
            settings = AutoConfig.for_model(**config)
            _check_heads(settings)
            model = kind.from_config(settings)
        except ModelError:
            raise
        except Exception as problem:  # whatever a number or a name leads to in transformers
            raise ModelError(
                f"transformers refuses the configuration: {type(problem).__name__}: {problem}",
                field="model.config",
            ) from None
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    tensors = {n: t.contiguous() for n, t in model.state_dict().items() if n not in tied}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_config(model, folder)


def _check_heads(settings: Any) -> None:
    """Refuse what transformers builds and cannot compute."""
    heads = settings.num_attention_heads
    shared = getattr(settings, "num_key_value_heads", None) or heads
    if heads % shared:
        raise ModelError(
            "the attention heads do not share the key-value heads equally",
            field="model.config",
            got=f"num_attention_heads: {heads}, num_key_value_heads: {shared}",
            allowed=f"a divisor of {heads} key-value heads",
        )
