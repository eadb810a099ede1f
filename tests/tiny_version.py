"""A registered version of a tiny untrained classifier, with golden examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kovar.inference import Runtime, load_runtime
from kovar.models import build_classifier, check_folder, save_model
from kovar.registry import (
    EnvironmentFacts,
    GoldenExample,
    GoldenExamples,
    Registry,
    Signature,
    Version,
    VersionFacts,
    write_golden,
)
from kovar.settings import Settings
from tiny import build_tiny_encoder

LABELS = ("negative", "positive")
TEXTS = ("i loved it", "a dull story and the acting is awful")


def settings_in(folder: Path) -> Settings:
    return Settings(
        database_url=f"sqlite:///{folder / 'registry.db'}",
        artifact_root=str(folder / "artifacts"),
        runs_dir=folder / "runs",
        cache_dir=folder / "cache",
    )


def build_tiny_classifier(folder: Path, *, seed: int = 0, max_length: int = 64) -> Path:
    """Write what training leaves: weights, configuration, tokenizer."""
    import torch

    encoder = folder.with_name(f"{folder.name}-encoder")
    base = check_folder(build_tiny_encoder(encoder, seed=seed), source="tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_model(build_classifier(base, labels=LABELS), base, folder, max_length=max_length)
    return folder


def golden_of(runtime: Runtime, *, shift: float = 0.0) -> GoldenExamples:
    """Ask for the golden answers; `shift` moves every probability, to make them wrong."""
    examples = tuple(
        GoldenExample(
            text=text,
            label=answer.label,
            scores={label: score + shift for label, score in answer.scores.items()},
        )
        for text, answer in zip(TEXTS, runtime.predict(TEXTS), strict=True)
    )
    return GoldenExamples(labels=runtime.labels, examples=examples)


def build_tiny_version(folder: Path, *, seed: int = 0, shift: float = 0.0) -> Path:
    """Write what is registered: a classifier and its golden examples."""
    runtime = load_runtime(build_tiny_classifier(folder, seed=seed), precision="fp32")
    write_golden(golden_of(runtime, shift=shift), folder)
    return folder


def register_tiny_version(
    settings: Settings,
    folder: Path,
    *,
    model: str = "tiny",
    alias: str = "champion",
    spec: dict[str, Any] | None = None,
) -> Version:
    """Register a classifier's folder and point an alias at it."""
    facts = VersionFacts(
        method="full",
        precision="fp32",
        seed=0,
        spec={"name": model, **(spec or {})},
        metrics={},
        environment=EnvironmentFacts(python="3.11", packages={}, chip="cpu"),
        signature=Signature(task="text-classification", labels=LABELS, max_length=64),
    )
    with Registry.open(settings) as registry:
        version = registry.register(model, folder, facts=facts)
        registry.set_alias(model, alias, version.digest)
    return version


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment variables that say the same as `settings`."""
    values = json.loads(settings.model_dump_json())
    return {f"KOVAR_{name.upper()}": str(value) for name, value in values.items() if value}
