"""Every rule over one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

from kovar.config import Document, FieldPath, dotted, load_document
from kovar.errors import SpecError, UserError
from kovar.resources.cluster_file import read_cluster_file
from kovar.resources.lint.chips import check_chips
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.exposure import check_exposure
from kovar.resources.lint.files import check_files
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.head import check_head
from kovar.resources.lint.installation import check_installation, pinned_ray
from kovar.resources.lint.labels import check_labels
from kovar.resources.lint.limits import check_limits
from kovar.resources.lint.machines import check_machines
from kovar.resources.lint.readiness import check_readiness
from kovar.resources.lint.schema import check_schema
from kovar.resources.lint.secret import check_secrets
from kovar.resources.lint.source import Source
from kovar.resources.lint.start import check_start
from kovar.resources.lint.tpus import check_tpus
from kovar.resources.lint.zones import check_zones

_RULES: Final[tuple[Callable[[ClusterYaml], Iterator[Finding]], ...]] = (
    check_limits,
    check_head,
    check_machines,
    check_tpus,
    check_chips,
    check_labels,
    check_zones,
    check_exposure,
    check_start,
    check_secrets,
)
_STAND_IN_HEAD: Final = {"resources": {"CPU": 0}, "node_config": {}}


def lint_cluster(path: str | Path) -> tuple[Finding, ...]:
    """Find everything that is wrong or surprising in a cluster file, by line.

    Raises:
        SpecError: the file cannot be read at all.
    """
    try:
        source = _read(Path(path))
    except SpecError as error:
        if error.context["line"] is None:
            raise
        return (_of_error(error, error.context["line"], error.field or ""),)
    folders = _folders(Path(path))
    found = chain(
        *(rule(source) for rule in _RULES),
        check_installation(source, ray=pinned_ray(folders)),
        check_files(source, folders=folders),
        check_schema(source),
    )
    return _sorted([*_without_echoes(list(found), source)])


def unfilled(path: str | Path) -> tuple[Finding, ...]:
    """Find what is left to fill in before the cluster can start, by line.

    Raises:
        SpecError: the file cannot be read.
    """
    return _sorted(check_readiness(_read(Path(path))))


def _read(path: Path) -> ClusterYaml:
    document = load_document(path)
    if not isinstance(document.data, Mapping):
        raise document.error_at((), "the file must hold a mapping (key: value lines)")
    return ClusterYaml(document, path.read_text(encoding="utf-8").splitlines())


def _folders(path: Path) -> tuple[Path, ...]:
    """Return where `ray up` may be run: here, or in a folder that holds the file."""
    return (Path.cwd(), *path.resolve().parents)


def _without_echoes(found: list[Finding], source: Source) -> Iterator[Finding]:
    """Add what Kovar's own reader refuses, where no rule has spoken about that line."""
    lines = {finding.line for finding in found}
    fields = {finding.field for finding in found}
    yield from found
    for refusal in _refusals(source):
        if refusal.line not in lines and refusal.field not in fields:
            fields.add(refusal.field)
            yield refusal


def _refusals(source: Source) -> Iterator[Finding]:
    """Read the whole file, then each node type alone: a reader stops at its first mistake."""
    data = source.document.data
    declared = source.mapping(("available_node_types",))
    candidates: list[dict[str, Any]] = [dict(data)]
    for name, kind in declared.items():
        alone = {name: kind}
        if name != data.get("head_node_type"):
            alone["stand-in head"] = _STAND_IN_HEAD
            candidates.append({**data, "head_node_type": "stand-in head"})
        else:
            candidates.append(dict(data))
        candidates[-1]["available_node_types"] = alone
    for candidate in candidates:
        try:
            read_cluster_file(Document.of(candidate))
        except UserError as error:
            path = _path_of(source, error.field or "")
            yield _of_error(error, source.document.line(path), dotted(path))


def _of_error(error: UserError, line: int, field: str) -> Finding:
    got = error.context["got"]
    allowed = error.context["allowed"]
    message = error.message + (f", not {got}" if got else "")
    fix = error.hint or (f"allowed: {allowed}" if allowed else "correct it")
    return Finding(line, field, message, fix, "error", "kovar")


def _path_of(source: Source, field: str) -> FieldPath:
    """Split a dotted path where the keys themselves may have dots."""
    path: list[str | int] = []
    rest = re.sub(r"\[(\d+)\]", r".\1", field)
    while rest:
        here = source.get(tuple(path))
        keys = sorted(map(str, here), key=len, reverse=True) if isinstance(here, Mapping) else []
        key = next((k for k in keys if rest == k or rest.startswith(f"{k}.")), None)
        if key is None:
            key = rest.partition(".")[0]
        path.append(key)
        rest = rest[len(key) + 1 :]
    return tuple(path)


def _sorted(found: Iterator[Finding] | list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(set(found), key=lambda one: (one.line, one.field, one.rule, one.message)))
