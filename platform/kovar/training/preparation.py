"""Everything before the first worker: plan, base model, tokenized data, the run's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kovar import __version__
from kovar.config import canonical_json
from kovar.errors import SpecError
from kovar.settings import Settings, ensure_writable, is_simulated
from kovar.training.cluster import connected_cluster
from kovar.training.fit import check_fit, fit_memory
from kovar.training.folder import RunFolder
from kovar.training.fp8 import check_fp8
from kovar.training.method import Lora, check_method
from kovar.training.optimizer import AdamW8bit, check_optimizer
from kovar.training.padding import check_padding
from kovar.training.parallel import check_tensor_plan
from kovar.training.plan import RunPlan, plan_run, unplanned_run
from kovar.training.progress import RunProgress
from kovar.training.spec import FineTuneSpec
from kovar.training.tasks import TASKS
from kovar.training.tokenizing import tokenizing_map

if TYPE_CHECKING:
    from kovar.data import TokenizedDataset, TokenizerSettings
    from kovar.models import BaseModelFiles, ModelSpec
    from kovar.registry import Registry
    from kovar.resources import Cluster

DECISIVE_PACKAGES: Final = ("torch", "transformers", "tokenizers")
"""Their versions can change the weights, so they are part of a run's identity."""

NOT_IN_IDENTITY: Final[Mapping[str, bool | Mapping[str, bool]]] = {
    "max_failures": True,
    "registration": True,
    "training": {"checkpoint_every": True, "keep_checkpoints": True},
}
"""Fields that cannot change the weights: after a change of them the run goes on."""


@dataclass(frozen=True)
class Prepared:
    """A run whose inputs are all checked and cached: only the accelerators are missing."""

    spec: FineTuneSpec
    base: BaseModelFiles
    dataset: TokenizedDataset
    plan: RunPlan
    folder: RunFolder


def prepare(
    spec: FineTuneSpec,
    *,
    base_dir: Path,
    settings: Settings,
    registry: Registry,
    progress: RunProgress,
    cluster: Cluster | None = None,
    fresh: bool = False,
    planned: bool = True,
) -> Prepared:
    """Check everything, fill the caches and choose the run's folder; start no worker.

    Raises:
        UserError: the spec, the data, the model or the placement is at fault.
    """
    base, dataset, plan = prepare_inputs(
        spec,
        base_dir=base_dir,
        settings=settings,
        registry=registry,
        progress=progress,
        cluster=cluster,
        planned=planned,
    )
    ensure_writable(settings.runs_dir, field="runs_dir")
    identity = {
        "spec": spec.model_dump(mode="json", exclude=NOT_IN_IDENTITY),
        "data": dataset.fingerprint,
        "base": base.digest,
        "kovar": __version__,
        "packages": {name: installed_version(name) for name in _decisive_packages(spec)},
        "device": plan.device,
        # What a stand-in trained must never be returned for the real chip.
        **({"simulated": True} if is_simulated() else {}),
    }
    run_id = f"{spec.name}-{hashlib.sha256(canonical_json(identity)).hexdigest()[:10]}"
    folder = RunFolder(settings.runs_dir / run_id)
    number = 1
    while fresh and folder.result.exists():
        number += 1
        folder = RunFolder(settings.runs_dir / f"{run_id}-{number}")
    folder.root.mkdir(exist_ok=True)
    return Prepared(spec, base, dataset, plan, folder)


def _decisive_packages(spec: FineTuneSpec) -> tuple[str, ...]:
    extras = {
        "bitsandbytes": isinstance(spec.training.optimizer, AdamW8bit),
        "peft": isinstance(spec.method, Lora),
        "torchao": spec.precision == "fp8",
    }
    return (*DECISIVE_PACKAGES, *(name for name, is_used in extras.items() if is_used))


def prepare_inputs(
    spec: FineTuneSpec,
    *,
    base_dir: Path,
    settings: Settings,
    registry: Registry,
    progress: RunProgress,
    cluster: Cluster | None = None,
    planned: bool = True,
) -> tuple[BaseModelFiles, TokenizedDataset, RunPlan]:
    """Check placement, model and data; download and tokenize what is not cached yet.

    Raises:
        MissingExtraError: an optimizer, a method or a precision whose library is not installed.
        UserError: the spec, the data, the model or the placement is at fault.
    """
    from kovar.registry import check_shared

    plan = plan_run(spec, cluster or connected_cluster()) if planned else unplanned_run(spec)
    check_libraries(spec, plan)
    if plan.placement is not None:
        check_shared(settings, num_nodes=sum(plan.placement.num_nodes.values()))
    inputs = fetch_inputs(
        spec,
        base_dir=base_dir,
        settings=settings,
        registry=registry,
        progress=progress,
        check=lambda base: check_base(spec, plan, base),
    )
    check_inputs(spec, plan, inputs)
    return inputs.base, inputs.dataset, plan


@dataclass(frozen=True)
class Inputs:
    """A checked base model and the rows tokenized for it."""

    base: BaseModelFiles
    dataset: TokenizedDataset

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest training row."""
        return int(self.dataset.open("train").lengths.max())


def check_libraries(spec: FineTuneSpec, plan: RunPlan) -> None:
    """Refuse an optimizer, a method or a precision whose library is not installed.

    Raises:
        MissingExtraError: with the command that installs it.
    """
    check_optimizer(spec.training.optimizer)
    check_method(spec.method)
    if plan.precision.precision == "fp8":
        check_fp8()


def check_base(spec: FineTuneSpec, plan: RunPlan, base: BaseModelFiles) -> None:
    """Refuse a base that the spec cannot train where it is planned.

    Raises:
        UserError: naming the field at fault.
    """
    from kovar.models import check_max_length

    TASKS[spec.task].check_base(base.config, source=base.source)
    check_max_length(base, spec.data.max_length)
    check_tensor_plan(spec, base.config)
    check_padding(spec.training.padding_free, base.config)
    check_fit(spec, fit_memory(spec, plan, base.config))


def check_inputs(spec: FineTuneSpec, plan: RunPlan, inputs: Inputs) -> None:
    """Refuse what the spec cannot train of these inputs; quick, since nothing is read again.

    Raises:
        UserError: naming the field at fault.
    """
    check_base(spec, plan, inputs.base)
    check_budget(spec, longest=inputs.longest)


def fetch_inputs(
    spec: FineTuneSpec,
    *,
    base_dir: Path,
    settings: Settings,
    registry: Registry,
    progress: RunProgress,
    check: Callable[[BaseModelFiles], None] = lambda base: None,
) -> Inputs:
    """Fetch the base model and tokenize the data, as far as they are not cached yet.

    Args:
        spec: what they are for.
        base_dir: folder that relative paths in the spec start from.
        settings: where the caches are.
        registry: needed for models that are versions.
        progress: told what happens.
        check: looks at the base before the data is tokenized.

    Raises:
        UserError: the data or the model is at fault.
    """
    from kovar.data import prepare_dataset
    from kovar.models import resolve_base

    ensure_writable(settings.cache_dir, field="cache_dir")
    places: dict[str, Any] = {
        "cache_dir": settings.cache_dir,
        "base_dir": base_dir,
        "progress": progress,
    }
    config, tokenizer = spec.model.config, spec.model.tokenizer
    if config is None or tokenizer is None:
        base = resolve_base(_pinned(spec.model, registry), registry=registry, **places)
    else:
        base = _from_scratch(spec, config, tokenizer, **places)
    check(base)
    dataset = prepare_dataset(
        spec.data,
        layout=TASKS[spec.task].layout,
        tokenizer_dir=base.folder,
        cache_dir=settings.cache_dir,
        base_dir=base_dir,
        progress=progress,
        ordered_map=tokenizing_map(),
    )
    return Inputs(base, dataset)


def _from_scratch(
    spec: FineTuneSpec,
    config: Mapping[str, Any],
    tokenizer: TokenizerSettings,
    *,
    cache_dir: Path,
    base_dir: Path,
    progress: RunProgress,
) -> BaseModelFiles:
    """Train the tokenizer on the training rows and draw the weights."""
    from kovar.data import training_texts
    from kovar.models import find_architecture, scratch_base

    architecture = find_architecture(str(config["model_type"]))
    decoder = architecture is not None and architecture.is_decoder
    if decoder and tokenizer.kind != "bytes":
        raise SpecError(
            "a model that writes text needs a tokenizer that keeps all of it",
            field="model.tokenizer.kind",
            got=tokenizer.kind,
            allowed="bytes",
        )
    texts = training_texts(
        spec.data,
        layout=TASKS[spec.task].layout,
        cache_dir=cache_dir,
        base_dir=base_dir,
        progress=progress,
    )
    return scratch_base(
        config,
        tokenizer,
        texts=lambda: texts,
        texts_digest=texts.digest,
        decoder=decoder,
        seed=spec.training.seed,
        cache_dir=cache_dir,
    )


def _pinned(model: ModelSpec, registry: Registry) -> ModelSpec:
    """Name a registered base by its digest: its alias may move before the run ends."""
    kind, _, reference = model.source.partition(":")
    if kind != "version":
        return model
    version = registry.resolve(reference)
    return model.model_copy(update={"base": f"version:{version.model}@{version.digest}"})


def check_budget(spec: FineTuneSpec, *, longest: int) -> None:
    """Refuse a token budget that does not hold the longest row.

    Raises:
        SpecError: naming the budget that would.
    """
    from kovar.data import bucket_length

    needed = bucket_length(longest, spec.data.max_length)
    if spec.training.max_tokens < needed:
        raise SpecError(
            "one batch cannot hold the longest training row",
            field="training.max_tokens",
            got=spec.training.max_tokens,
            allowed=f"at least {needed} tokens",
            hint="raise training.max_tokens or lower data.max_length",
        )
