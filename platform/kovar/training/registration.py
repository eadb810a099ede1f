"""From a trained run to a version: the facts that a manifest holds, and the alias."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovar.errors import NotFoundError
from kovar.events import read_events
from kovar.registry import GoldenResult, Parent
from kovar.registry.exchange import import_folder
from kovar.training.history.incident import incidents
from kovar.training.method import Lora
from kovar.training.tasks import TASKS

if TYPE_CHECKING:
    from pydantic import JsonValue

    from kovar.registry import Registry, Version, VersionFacts
    from kovar.training.preparation import Prepared
    from kovar.training.progress import RunProgress


@dataclass(frozen=True)
class Registered:
    """What a run became.

    Args:
        version: the one that an alias points at: whole, or the adapter where nothing was merged.
        adapter: the adapter that `version` was merged of.
    """

    version: Version
    adapter: Version | None = None


@dataclass(frozen=True)
class SweepFacts:
    """The sweep that a run was a trial of.

    Args:
        sweep: its id.
        rivals: the other trials, as plain JSON types, for the card.
    """

    sweep: str
    rivals: list[JsonValue]


def register_run(
    prepared: Prepared,
    registry: Registry,
    progress: RunProgress,
    *,
    sweep: SweepFacts | None = None,
) -> Registered:
    """Make the trained files versions; what an identical run registered is returned."""
    folder, method = prepared.folder, prepared.spec.method
    trained = json.loads(folder.metrics.read_text(encoding="utf-8"))
    base = _base_version(prepared, registry, progress)
    parents = (Parent(role="base", digest=base.digest),) if base else ()
    facts = _facts(prepared, trained, parents)
    version = _register(prepared, folder.model, facts, trained, registry, progress, sweep)
    registry.note_golden(version, GoldenResult(**trained["golden"]))
    if not (isinstance(method, Lora) and method.merge):
        return Registered(version)
    parents = (Parent(role="merged", digest=version.digest),)
    merged = facts.model_copy(update={"parents": parents, "method": "merge"})
    whole = _register(prepared, folder.merged, merged, trained, registry, progress, sweep)
    registry.note_golden(whole, GoldenResult(**trained["merged_golden"]))
    return Registered(whole, adapter=version)


def _register(
    prepared: Prepared,
    files: Path,
    facts: VersionFacts,
    trained: dict[str, Any],
    registry: Registry,
    progress: RunProgress,
    sweep: SweepFacts | None,
) -> Version:
    folder = prepared.folder
    seconds = sum(e["seconds"] for e in read_events(folder.events) if e["event"] == "step")
    return registry.register(
        prepared.spec.name,
        files,
        facts=facts,
        run=folder.run,
        sweep=None if sweep is None else sweep.sweep,
        run_facts={
            "training_seconds": round(seconds, 1),
            "device": trained["device"],
            "num_workers": trained["num_workers"],
            **({} if sweep is None else {"rivals": sweep.rivals}),
        },
        progress=progress,
    )


def _base_version(prepared: Prepared, registry: Registry, progress: RunProgress) -> Version | None:
    """Return the version that training started from.

    An adapter is nothing without its base, so a base from elsewhere is registered with it: once,
    since equal files are one version.
    """
    kind, _, reference = prepared.base.source.partition(":")
    if kind == "version":
        return registry.resolve(reference)
    if not isinstance(prepared.spec.method, Lora):
        return None
    from kovar.models import model_files

    with tempfile.TemporaryDirectory(prefix="kovar-base-") as temporary:
        staged = Path(temporary) / "files"
        staged.mkdir()
        for file in model_files(prepared.base.folder):
            shutil.copyfile(file, staged / file.name)
        name = base_name(prepared.base.source)
        return import_folder(registry, staged, model=name, progress=progress)


def base_name(source: str) -> str:
    """Return the name under which a base is registered: the last part of where it came from."""
    last = source.partition(":")[2] or source
    last = last.partition("@")[0].rstrip("/").rpartition("/")[2]
    return "base-" + re.sub(r"[^a-z0-9._-]+", "-", last.lower()).strip("._-")


def _facts(
    prepared: Prepared, trained: dict[str, Any], parents: tuple[Parent, ...]
) -> VersionFacts:
    from kovar.registry import (
        BaseFacts,
        DataFacts,
        EnvironmentFacts,
        SourceFacts,
        SplitFacts,
        VersionFacts,
    )

    revision = trained["source_revision"]
    told: list[JsonValue] = [*incidents(read_events(prepared.folder.events))]
    spec, base, dataset = prepared.spec, prepared.base, prepared.dataset
    return VersionFacts(
        base_model=BaseFacts(
            source=base.source, digest=base.digest, num_parameters=base.num_parameters
        ),
        method=spec.method.kind,
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
            **({"incidents": told} if told else {}),
        },
        environment=EnvironmentFacts.model_validate(trained["environment"]),
        source_revision=SourceFacts.model_validate(revision) if revision else None,
        signature=TASKS[spec.task].signature(dataset.labels, max_length=spec.data.max_length),
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
