"""A seeded fault: a small mistake in a good file, and where it has to be reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from kovar.errors import UserError
from kovar.planning import plan_specs
from kovar.resources.lint import lint_cluster

REPOSITORY = Path(__file__).parents[2]

Check = Literal["plan", "plan on the cluster", "lint"]
Edit = Callable[[str], str]


class Seed(Protocol):
    """A good file and an edit of it."""

    @property
    def file(self) -> str: ...

    @property
    def edit(self) -> Edit: ...


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Args:
        name: what an engineer did, unique in the corpus.
        file: the good file, relative to the repository.
        edit: turns its text into the faulty one.
        field: dotted path of the field that has to be named.
        says: text that the message has to contain.
        check: the command that has to notice it.
        elsewhere: the mistake shows on another line than the changed one.
    """

    name: str
    file: str
    edit: Edit
    field: str
    says: str
    check: Check = "lint"
    elsewhere: bool = False


@dataclass(frozen=True)
class Report:
    """What Kovar said about one place."""

    line: int | None
    field: str
    text: str


def swap(old: str, new: str, *, after: str = "") -> Edit:
    """Replace the first `old` behind `after`."""

    def edit(text: str) -> str:
        start = text.index(after) + len(after)
        where = text.index(old, start)
        return text[:where] + new + text[where + len(old) :]

    return edit


def drop(line: str, *, after: str = "") -> Edit:
    """Remove the first line behind `after` that holds `line`."""

    def edit(text: str) -> str:
        where = text.index(line, text.index(after) + len(after))
        start, end = text.rfind("\n", 0, where) + 1, text.index("\n", where) + 1
        return text[:start] + text[end:]

    return edit


def add(lines: str, *, below: str, after: str = "") -> Edit:
    """Insert lines below the first line behind `after` that holds `below`."""

    def edit(text: str) -> str:
        where = text.index(below, text.index(after) + len(after))
        end = text.index("\n", where) + 1
        return f"{text[:end]}{lines}\n{text[end:]}"

    return edit


def both(*edits: Edit) -> Edit:
    """Make several edits, one after the other."""

    def edit(text: str) -> str:
        for each in edits:
            text = each(text)
        return text

    return edit


def seed(fault: Seed, folder: Path) -> Path:
    """Write the faulty file, beside copies of the files that it may refer to."""
    for room in ("jobs", "tune", "serve"):
        shutil.copytree(
            REPOSITORY / room, folder / room, ignore=shutil.ignore_patterns("*.py", "__pycache__")
        )
    path = folder / fault.file
    path.parent.mkdir(parents=True, exist_ok=True)
    good = (REPOSITORY / fault.file).read_text()
    faulty = fault.edit(good)
    assert faulty != good
    path.write_text(faulty)
    return path


def first_changed_line(fault: Fault) -> int:
    """Return the 1-based line on which the faulty text begins to differ."""
    good = (REPOSITORY / fault.file).read_text()
    pairs = zip(good.splitlines(), fault.edit(good).splitlines(), strict=False)
    return next((n for n, (old, new) in enumerate(pairs, start=1) if old != new), 0)


def reports(check: Check, path: Path) -> list[Report]:
    """Run the command that a user would, in this process."""
    if check == "lint":
        return [
            Report(one.line, one.field, f"{one.message} → {one.fix}") for one in lint_cluster(path)
        ]
    cluster = REPOSITORY / "cluster.yaml" if check == "plan on the cluster" else None
    try:
        plan_specs([path], cluster=cluster)
    except UserError as error:
        return [Report(error.context["line"], error.field or "", str(error))]
    return []
