"""Where a version comes from and what was made of it: a graph, drawn as a tree or as Mermaid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from kovar.registry.database import Database
from kovar.registry.schema import models, parents, versions
from kovar.registry.version import Version

MAX_NODES: Final = 500


@dataclass(frozen=True, kw_only=True)
class LineageNode:
    """One version in the graph."""

    digest: str
    names: tuple[str, ...]
    """`name@number`, once per model that has it; empty for one that is not in this registry."""
    run: str | None = None
    sweep: str | None = None
    deleted: bool = False

    @property
    def label(self) -> str:
        """What to call it in a drawing."""
        name = " = ".join(self.names) or "not in this registry"
        facts = [f"run {self.run}" if self.run else "", f"sweep {self.sweep}" if self.sweep else ""]
        notes = [self.digest[:12], *filter(None, facts), *(["deleted"] if self.deleted else [])]
        return f"{name} ({', '.join(notes)})"


@dataclass(frozen=True, kw_only=True)
class LineageEdge:
    """A child descends from a parent in a role."""

    parent: str
    child: str
    role: str


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The ancestors and the descendants of one version."""

    digest: str
    """The version in question."""
    nodes: tuple[LineageNode, ...]
    """All versions, sorted by digest."""
    edges: tuple[LineageEdge, ...]
    """All descents, sorted."""
    complete: bool
    """False where there were too many to list."""

    def tree(self) -> str:
        """Draw two trees as text: what it descends from, and what descends from it."""
        ups: dict[str, list[tuple[str, str]]] = {node.digest: [] for node in self.nodes}
        downs: dict[str, list[tuple[str, str]]] = {node.digest: [] for node in self.nodes}
        for edge in self.edges:
            ups[edge.child].append((edge.parent, edge.role))
            downs[edge.parent].append((edge.child, edge.role))
        labels = {node.digest: node.label for node in self.nodes}
        lines = [labels[self.digest]]
        for title, neighbours in (("descends from", ups), ("gave rise to", downs)):
            if neighbours[self.digest]:
                lines += [f"{title}:", *_branches(self.digest, neighbours, labels, set(), "")]
        if not self.complete:
            lines.append(f"… and more: only {len(self.nodes)} versions are listed")
        return "\n".join(lines)

    def mermaid(self) -> str:
        """Draw the graph as a Mermaid flowchart, parents above their children."""
        lines = ["flowchart TD"]
        for node in self.nodes:
            label = node.label.replace('"', "#quot;").replace("<", "#lt;")
            lines.append(f'    {_key(node.digest)}["{label}"]')
        for edge in self.edges:
            lines.append(f"    {_key(edge.parent)} -->|{edge.role}| {_key(edge.child)}")
        lines.append(f"    style {_key(self.digest)} stroke-width:3px")
        return "\n".join(lines) + "\n"


def find_lineage(database: Database, version: Version) -> Lineage:
    """Follow the parents and the children of a version to the end, or to `MAX_NODES`."""
    edges: set[tuple[str, str, str]] = set()
    with database.reading() as connection:
        seen = {version.digest}
        for upwards in (True, False):
            level = {version.digest}
            while level and len(seen) < MAX_NODES:
                rows = connection.execute(_edges(sorted(level), upwards=upwards)).all()
                edges |= {(row.parent, row.child, row.role) for row in rows}
                found = {row.parent if upwards else row.child for row in rows}
                level = set(sorted(found - seen)[: MAX_NODES - len(seen)])
                seen |= level
        nodes = _nodes(connection, sorted(seen))
    kept = sorted(edge for edge in edges if edge[0] in seen and edge[1] in seen)
    return Lineage(
        digest=version.digest,
        nodes=nodes,
        edges=tuple(
            LineageEdge(parent=parent, child=child, role=role) for parent, child, role in kept
        ),
        complete=len(kept) == len(edges) and len(seen) < MAX_NODES,
    )


def _edges(digests: Sequence[str], *, upwards: bool) -> sa.Select[Any]:
    known = versions.c.digest if upwards else parents.c.digest
    return (
        sa.select(
            parents.c.digest.label("parent"), versions.c.digest.label("child"), parents.c.role
        )
        .join(versions, parents.c.version_id == versions.c.id)
        .where(known.in_(digests))
        .distinct()
    )


def _nodes(connection: sa.Connection, digests: Sequence[str]) -> tuple[LineageNode, ...]:
    query = (
        sa.select(
            versions.c.digest,
            versions.c.number,
            versions.c.run,
            versions.c.sweep,
            versions.c.deleted_at,
            models.c.name,
        )
        .join(models)
        .where(versions.c.digest.in_(digests))
        .order_by(models.c.name, versions.c.number)
    )
    rows_of: dict[str, list[Any]] = {digest: [] for digest in digests}
    for row in connection.execute(query):
        rows_of[row.digest].append(row)
    return tuple(
        LineageNode(
            digest=digest,
            names=tuple(f"{row.name}@{row.number}" for row in rows),
            run=next((row.run for row in rows if row.run), None),
            sweep=next((row.sweep for row in rows if row.sweep), None),
            deleted=bool(rows) and all(row.deleted_at for row in rows),
        )
        for digest, rows in rows_of.items()
    )


def _branches(
    digest: str,
    neighbours: dict[str, list[tuple[str, str]]],
    labels: dict[str, str],
    drawn: set[str],
    indent: str,
) -> Iterator[str]:
    branches = sorted(neighbours[digest])
    for number, (other, role) in enumerate(branches):
        last = number == len(branches) - 1
        again = other in drawn
        yield f"{indent}{'└─' if last else '├─'} {role}: {labels[other]}{' …' if again else ''}"
        if not again:
            drawn.add(other)
            deeper = f"{indent}{'   ' if last else '│  '}"
            yield from _branches(other, neighbours, labels, drawn, deeper)


def _key(digest: str) -> str:
    return f"v{digest[:16]}"
