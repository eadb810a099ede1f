"""Registered adapters over one tiny base, with golden examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kovar.inference import load_runtime
from kovar.models import build_for_training, check_folder, put_adapter, save_adapter
from kovar.registry import (
    EnvironmentFacts,
    Parent,
    Registry,
    Signature,
    Version,
    VersionFacts,
    write_golden,
)
from kovar.settings import Settings
from tiny import build_tiny_encoder
from tiny_version import LABELS, golden_of

FIELDS: dict[str, Any] = {
    "r": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.0,
}

ADAPTERS: dict[str, Any] = {
    "models": [{"model": "tenant-*"}],
    "base": "base@champion",
    "max_loaded": 2,
}
ADAPTER_ARGS: dict[str, Any] = {
    "model": "films",
    "runtime": "torch",
    "precision": "fp32",
    "adapters": ADAPTERS,
}
"""What an application with adapters says."""


def build_tiny_adapter(
    folder: Path,
    base: Path,
    *,
    seed: int = 0,
    labels: Sequence[str] = LABELS,
    dora: bool = False,
    shift: float = 0.0,
    layers: Sequence[str] = ("query", "dense"),
) -> Path:
    """Write what is registered of an adapter: its files and golden examples, `shift` off."""
    import torch

    files = check_folder(base, source="tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = build_for_training(files, labels=labels)
        changed = {"target_modules": list(layers), "modules_to_save": list(built.head)}
        model = put_adapter(built.model, FIELDS | changed | {"use_dora": dora})
        for name, tensor in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(tensor)
    save_adapter(model, files, folder, max_length=64)
    merged = load_runtime(folder, runtime="torch", precision="fp32", base_folder=base)
    write_golden(golden_of(merged, shift=shift), folder)
    return folder


def register_tiny_base(
    settings: Settings, folder: Path, *, model: str = "base", seed: int = 0
) -> Version:
    """Register an encoder that adapters are trained on."""
    return _register(settings, build_tiny_encoder(folder, seed=seed), model, facts_of())


def register_tiny_adapter(
    settings: Settings,
    folder: Path,
    base: Version,
    *,
    model: str,
    labels: Sequence[str] = LABELS,
) -> Version:
    """Register an adapter's folder and point `champion` at it."""
    parents = (Parent(role="base", digest=base.digest),)
    return _register(settings, folder, model, facts_of(labels, parents))


def facts_of(labels: Sequence[str] = (), parents: tuple[Parent, ...] = ()) -> VersionFacts:
    """State what a version is made of."""
    return VersionFacts(
        method="lora" if parents else "import",
        precision="fp32",
        seed=0,
        spec={},
        metrics={},
        environment=EnvironmentFacts(python="3.11", packages={}, chip="cpu"),
        signature=Signature(
            task="text-classification" if labels else "unknown",
            labels=tuple(labels),
            max_length=64 if labels else None,
        ),
        parents=parents,
    )


def _register(settings: Settings, folder: Path, model: str, facts: VersionFacts) -> Version:
    with Registry.open(settings) as registry:
        version = registry.register(model, folder, facts=facts)
        registry.set_alias(model, "champion", version.digest)
    return version
