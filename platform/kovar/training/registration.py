"""From a trained run to a version: the facts that a manifest holds, and the alias."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kovar.errors import NotFoundError
from kovar.events import read_events
from kovar.registry import GoldenResult

if TYPE_CHECKING:
    from kovar.registry import Registry, Version, VersionFacts
    from kovar.training.preparation import Prepared
    from kovar.training.progress import RunProgress


def register_run(prepared: Prepared, registry: Registry, progress: RunProgress) -> Version:
    """Make the trained files a version; what an identical run registered is returned."""
    folder = prepared.folder
    trained = json.loads(folder.metrics.read_text(encoding="utf-8"))
    seconds = sum(e["seconds"] for e in read_events(folder.events) if e["event"] == "step")
    version = registry.register(
        prepared.spec.name,
        folder.model,
        facts=_facts(prepared, trained, registry),
        run=folder.run,
        run_facts={
            "training_seconds": round(seconds, 1),
            "device": trained["device"],
            "num_workers": trained["num_workers"],
        },
        progress=progress,
    )
    registry.note_golden(version, GoldenResult(**trained["golden"]))
    return version


def _facts(prepared: Prepared, trained: dict[str, Any], registry: Registry) -> VersionFacts:
    from kovar.registry import (
        BaseFacts,
        DataFacts,
        EnvironmentFacts,
        Parent,
        Signature,
        SourceFacts,
        SplitFacts,
        TensorFacts,
        VersionFacts,
    )

    revision = trained["source_revision"]
    spec, base, dataset = prepared.spec, prepared.base, prepared.dataset
    kind, _, reference = base.source.partition(":")
    parents = (
        (Parent(role="base", digest=registry.resolve(reference).digest),)
        if kind == "version"
        else ()
    )
    return VersionFacts(
        base_model=BaseFacts(
            source=base.source, digest=base.digest, num_parameters=base.num_parameters
        ),
        method="full",
        precision=trained["precision"],
        seed=spec.training.seed,
        spec=spec.model_dump(mode="json"),
        data=DataFacts(
            source=spec.data.source,
            fingerprint=dataset.fingerprint,
            split=SplitFacts(
                num_train=dataset.num_train,
                num_evaluation=dataset.num_evaluation,
                seed=spec.data.split_seed,
            ),
            details=dataset.facts,
        ),
        metrics={"evaluation": trained["evaluation"]},
        training={
            "num_steps": trained["num_steps"],
            "weights_step": trained["weights_step"],
            "num_workers": trained["num_workers"],
            "weights_digest": trained["weights_digest"],
        },
        environment=EnvironmentFacts.model_validate(trained["environment"]),
        source_revision=SourceFacts.model_validate(revision) if revision else None,
        signature=Signature(
            task=spec.task,
            inputs=(TensorFacts(name="text", datatype="BYTES", shape=(-1,)),),
            outputs=(
                TensorFacts(name="label", datatype="BYTES", shape=(-1,)),
                TensorFacts(name="scores", datatype="FP32", shape=(-1, len(dataset.labels))),
            ),
            labels=dataset.labels,
            max_length=spec.data.max_length,
        ),
        parents=parents,
        intended_use=spec.registration.intended_use,
        limits=spec.registration.limits,
    )


def point_alias(registry: Registry, version: Version, alias: str, *, reason: str) -> None:
    """Point an alias at a version, from wherever it points now, by compare-and-swap.

    Raises:
        ConflictError: somebody moved it in between.
    """
    try:
        current = registry.version(version.model, alias).digest
    except NotFoundError:
        current = None
    if current != version.digest:
        registry.set_alias(version.model, alias, to=version.digest, expected=current, reason=reason)
