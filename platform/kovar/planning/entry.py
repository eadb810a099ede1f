"""What one file asks for: groups of equal workers, trials or replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from kovar.batch import EvaluateSpec, PredictSpec
from kovar.batch.plan import worker_demand
from kovar.config import Document, FieldPath, dotted, load_document
from kovar.errors import UserError, did_you_mean
from kovar.resources import Demand
from kovar.serving import ServingSpec, read_args
from kovar.serving.plan import replica_demand
from kovar.training import FineTuneSpec
from kovar.tuning import Sweep, load_sweep
from kovar.tuning.groups import TrialGroup

KINDS: Final = ("finetune", "sweep", "evaluate", "predict")


@dataclass(frozen=True)
class Entry:
    """One group of equal workers, trials or replicas that a file asks for.

    Args:
        document: the file.
        demand: what they need, and how many of them.
        work: what they do.
        at: where in the file the fields begin.
        sweep: the sweep that trials belong to.
    """

    document: Document
    demand: Demand
    work: FineTuneSpec | TrialGroup | ServingSpec | EvaluateSpec | PredictSpec
    at: FieldPath = ()
    sweep: Sweep | None = None

    @property
    def kind(self) -> Literal["finetune", "sweep", "serve", "evaluate", "predict"]:
        """What the file is."""
        match self.work:
            case FineTuneSpec():
                return "finetune"
            case TrialGroup():
                return "sweep"
            case ServingSpec():
                return "serve"
            case EvaluateSpec() | PredictSpec():
                return self.work.kind

    @property
    def base_dir(self) -> Path:
        """Folder that relative paths in the spec start from."""
        if self.sweep is not None:
            return self.sweep.base_dir
        return self.document.path.parent if self.document.path else Path()

    @contextmanager
    def pointing(self) -> Iterator[None]:
        """Give the file and the line to errors about a field."""
        try:
            with (self.sweep or self.document).pointing():
                yield
        except UserError as error:
            if self.at and error.context["file"] is None:
                error.context |= _place(self.document, self.at, error)
            raise


GroupsOf = Callable[[Sweep], Sequence[TrialGroup]]
"""Sorts the trials of a sweep by hardware, on the cluster that is planned for."""


def read_entries(paths: Sequence[Path], groups_of: GroupsOf = lambda sweep: ()) -> list[Entry]:
    """Read what files ask for; a file's `kind:` or `applications:` tells what it is.

    Args:
        paths: the files.
        groups_of: sorts the trials of a sweep; sweeps are left out by default.

    Raises:
        SpecError: not a file that Kovar plans, or a mistake in it.
        PlacementError: no node can hold a trial of a sweep.
    """
    entries = [entry for path in paths for entry in _read_file(path, groups_of)]
    if not entries:
        raise UserError("there is nothing to plan in these files", file=paths[0])
    return _with_unique_names(entries)


def _read_file(path: Path, groups_of: GroupsOf) -> list[Entry]:
    document = load_document(path)
    fields: dict[str, Any] = document.data if isinstance(document.data, dict) else {}
    match fields.get("kind"):
        case "finetune":
            spec = document.parse(FineTuneSpec)
            return [Entry(document, Demand.of(spec.resources, name=spec.name), spec)]
        case "sweep":
            sweep = load_sweep(path)
            groups = [group for group in groups_of(sweep) if group.trials]
            return [Entry(document, group.demand, group, sweep=sweep) for group in groups]
        case "evaluate":
            evaluation = document.parse(EvaluateSpec)
            return [Entry(document, worker_demand(evaluation), evaluation)]
        case "predict":
            prediction = document.parse(PredictSpec)
            return [Entry(document, worker_demand(prediction), prediction)]
        case None if "applications" in fields:
            return _applications(document)
        case kind:
            raise document.error_at(
                ("kind",),
                "not a spec that can be planned",
                got=kind,
                allowed=f"kind: {' or '.join(KINDS)}, or a Ray Serve file with applications:",
                hint=did_you_mean(str(kind), list(KINDS)),
            )


def _applications(document: Document) -> list[Entry]:
    applications = document.data["applications"]
    if not isinstance(applications, list) or not all(isinstance(a, dict) for a in applications):
        raise document.error_at(("applications",), "a list of applications is needed")
    entries = []
    for index, application in enumerate(applications):
        if not str(application.get("import_path", "")).startswith("kovar.serving"):
            continue
        at: FieldPath = ("applications", index, "args")
        try:
            spec = read_args(application.get("args") or {})
        except UserError as error:
            error.context |= _place(document, at, error)
            raise
        demand = replica_demand(spec, name=str(application.get("name") or spec.model))
        entries.append(Entry(document, demand, spec, at=at))
    return entries


def _place(document: Document, at: FieldPath, error: UserError) -> dict[str, Any]:
    """Return where in the file the field of an application's arguments stands."""
    path = (*at, *(error.field.split(".") if error.field else ()))
    return {"file": str(document.path), "line": document.line(path), "field": dotted(path)}


def _with_unique_names(entries: list[Entry]) -> list[Entry]:
    """Tell demands of one name apart: a model may be trained and served under its name."""
    seen: dict[str, int] = {}
    renamed = []
    for entry in entries:
        name = entry.demand.name
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name} ({entry.kind} {seen[name]})"
        renamed.append(replace(entry, demand=replace(entry.demand, name=name)))
    return renamed
