"""`kovar plan`: where specs of any kind would run together, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from kovar.config import Document, FieldPath, load_document
from kovar.errors import UserError, did_you_mean
from kovar.precision import Precision
from kovar.resources import (
    Cluster,
    Demand,
    Placement,
    Request,
    local_cluster,
    plan_placement,
    read_cluster,
)
from kovar.training import FineTuneSpec
from kovar.training.plan import PlannedPrecision, check_engine, plan_precision

KINDS = ("finetune", "sweep")


@dataclass(frozen=True)
class Entry:
    """One group of equal workers, trials or replicas that a file asks for."""

    document: Document
    kind: str
    demand: Demand
    precisions: tuple[Precision, ...]
    """As written; the trials of a sweep may differ."""

    trained: FineTuneSpec | None = None
    """What the engine must be able to train."""
    at: FieldPath = ()
    """Where in the file the fields begin."""

    @contextmanager
    def pointing(self) -> Iterator[None]:
        """Give the file and the line to errors about a field."""
        try:
            with self.document.pointing():
                yield
        except UserError as error:
            if not self.at or error.context["file"] is not None:
                raise
            raise _in_args(self.document, self.at, error) from None

    @property
    def request(self) -> Request:
        """What each of them needs."""
        return self.demand.request


@dataclass(frozen=True)
class Plan:
    """Where everything goes, and at which precision."""

    entries: tuple[Entry, ...]
    precisions: tuple[tuple[PlannedPrecision, ...], ...]
    """Per entry, one for each of its precisions."""
    placement: Placement

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        rows = [
            {
                "file": str(entry.document.path),
                "kind": entry.kind,
                "name": entry.demand.name,
                "placed": dict(self.placement.assignments[entry.demand.name]),
                "precisions": {one.precision: one.reason for one in resolved},
            }
            for entry, resolved in zip(self.entries, self.precisions, strict=True)
        ]
        return {"specs": rows, "placement": self.placement.to_json()}

    def table(self) -> Table:
        """Draw the plan."""
        table = Table("spec", "kind", "placed", "precision", title="plan", show_lines=True)
        for entry, resolved in zip(self.entries, self.precisions, strict=True):
            assigned = self.placement.assignments[entry.demand.name]
            placed = ", ".join(f"{count} × {where}" for where, count in assigned.items())
            reasons = "\n".join(one.reason for one in resolved)
            table.add_row(entry.demand.name, entry.kind, placed, reasons)
        added = ", ".join(f"{n} × {where}" for where, n in self.placement.num_added.items() if n)
        table.caption = f"nodes to add: {added or 'none'}"
        return table


def plan_specs(paths: Sequence[Path], *, cluster: Path | None = None) -> Plan:
    """Place the workers, trials and replicas of all files together.

    Args:
        paths: fine-tuning, sweep or Ray Serve files.
        cluster: a cluster.yaml; this machine when absent.

    Raises:
        SpecError: a file is wrong.
        PlacementError: they do not fit; names the field and the nearest change.
    """
    entries = [entry for path in paths for entry in read_entries(path)]
    if not entries:
        raise UserError("there is nothing to plan in these files", file=paths[0])
    entries = _with_unique_names(entries)
    where = local_cluster() if cluster is None else read_cluster(cluster)
    placement = _place(entries, where)
    resolved = []
    for entry in entries:
        used = placement.assignments[entry.demand.name]
        request = placement.requests[entry.demand.name]
        chosen = [kind for kind in where.node_types if kind.name in used]
        with entry.pointing():
            planned = [plan_precision(one, request, chosen) for one in entry.precisions]
            if entry.trained is not None:
                for one in planned:
                    check_engine(entry.trained, one)
        resolved.append(tuple(planned))
    return Plan(tuple(entries), tuple(resolved), placement)


def _place(entries: Sequence[Entry], cluster: Cluster) -> Placement:
    """Place all together; an error points into the first file that no longer fits."""
    for number, entry in enumerate(entries, start=1):
        with entry.pointing():
            placement = plan_placement([e.demand for e in entries[:number]], cluster)
    return placement


def read_entries(path: Path) -> list[Entry]:
    """Read what one file asks for; its `kind:` or its `applications:` tells what it is.

    Raises:
        SpecError: not a file that Kovar plans, or a mistake in it.
    """
    document = load_document(path)
    fields: dict[str, Any] = document.data if isinstance(document.data, dict) else {}
    match fields.get("kind"):
        case "finetune":
            spec = document.parse(FineTuneSpec)
            demand = Demand.of(spec.resources, name=spec.name)
            return [Entry(document, "finetune", demand, (spec.precision,), trained=spec)]
        case "sweep":
            return [_sweep_entry(document, path)]
        case None if "applications" in fields:
            return _serving_entries(document)
        case kind:
            raise document.error_at(
                ("kind",),
                "not a spec that can be planned",
                got=kind,
                allowed=f"kind: {' or '.join(KINDS)}, or a Ray Serve file with applications:",
                hint=did_you_mean(str(kind), list(KINDS)),
            )


def _sweep_entry(document: Document, path: Path) -> Entry:
    from kovar.tuning import load_sweep

    sweep = load_sweep(path)
    trial = sweep.trials[0].spec
    at_once = min(len(sweep.trials), sweep.spec.max_concurrent or len(sweep.trials))
    demand = Demand(
        name=sweep.spec.name,
        field="resources.worker",
        request=trial.resources.worker,
        num_min=1,
        num_max=at_once,
    )
    distinct = dict.fromkeys(one.spec.precision for one in sweep.trials)
    return Entry(document, "sweep", demand, tuple(distinct), trained=trial)


def _serving_entries(document: Document) -> list[Entry]:
    from kovar.serving import read_args

    applications = document.data["applications"]
    if not isinstance(applications, list) or not all(isinstance(a, dict) for a in applications):
        raise document.error_at(("applications",), "a list of applications is needed")
    entries = []
    for index, application in enumerate(applications):
        if not str(application.get("import_path", "")).startswith("kovar.serving"):
            continue
        try:
            spec = read_args(application.get("args") or {})
        except UserError as error:
            raise _in_args(document, ("applications", index, "args"), error) from None
        demand = Demand(
            name=str(application.get("name") or spec.model),
            field="replica",
            request=spec.replica,
            num_min=spec.num_replicas.min,
            num_max=spec.num_replicas.max,
            num_field="num_replicas",
        )
        at: FieldPath = ("applications", index, "args")
        entries.append(Entry(document, "serve", demand, (spec.precision,), at=at))
    return entries


def _in_args(document: Document, at: FieldPath, error: UserError) -> UserError:
    """Give a mistake in an application's arguments its place in the file."""
    at = (*at, *(error.field.split(".") if error.field else ()))
    details = {key: error.context[key] for key in ("got", "allowed")}
    return document.error_at(at, error.message, **details, hint=error.hint)


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
