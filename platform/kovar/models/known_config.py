"""The configuration of a base model, as far as it is known before the model is fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.data.package import find_package
from kovar.errors import ModelError
from kovar.models.base import CONFIG_FILE, ModelSpec, unknown_model
from kovar.models.published import published_config

if TYPE_CHECKING:
    from kovar.registry import Registry


def known_config(
    spec: ModelSpec, *, base_dir: Path, registry: Registry | None = None
) -> Mapping[str, Any] | None:
    """Return the content of a base model's config.json without downloading anything.

    Args:
        spec: names the model.
        base_dir: folder that relative paths start from.
        registry: needed for `version:` models alone.

    Returns:
        None for a hub model that is neither in the hub's cache nor listed in models/published.py.

    Raises:
        ModelError: an unknown package or folder.
        NotFoundError: no such version in the registry.
    """
    if spec.config is not None and spec.tokenizer is not None:
        return {**spec.config, "vocab_size": spec.tokenizer.vocab_size}
    base = spec.source
    kind, separator, name = base.partition(":")
    if separator and kind == "package":
        return find_package(name, kind="model", field="model.base").config
    if separator and kind == "hub":
        return _parsed(_cached_from_hub(name)) or published_config(name)
    if separator and kind == "version":
        if registry is None:
            return None
        return _parsed(registry.read_file(registry.resolve(name), CONFIG_FILE))
    try:
        folder = base_dir / Path(base).expanduser()
        path = folder / CONFIG_FILE
        if not folder.is_dir():
            raise unknown_model(base, folder)
        return _parsed(path.read_bytes()) if path.is_file() else None
    except (OSError, RuntimeError) as problem:  # RuntimeError: "~name" of nobody
        raise ModelError(
            f"cannot read the folder: {problem}", field="model.base", got=base
        ) from None


def _cached_from_hub(name: str) -> bytes | None:
    from huggingface_hub import try_to_load_from_cache

    model, _, revision = name.partition("@")
    found = try_to_load_from_cache(model, CONFIG_FILE, revision=revision or None)
    return Path(found).read_bytes() if isinstance(found, str) else None


def _parsed(content: bytes | None) -> Mapping[str, Any] | None:
    """Read JSON; what is damaged is told, with its file, when the model is fetched."""
    try:
        config = json.loads(content or b"null")
    except ValueError:
        return None
    return config if isinstance(config, dict) else None
