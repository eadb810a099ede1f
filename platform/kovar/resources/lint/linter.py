"""Every rule over one file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

from kovar.config import Document, load_documents
from kovar.errors import SpecError
from kovar.resources.kuberay import is_kuberay
from kovar.resources.lint.chips import check_chips
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.exposure import check_exposure
from kovar.resources.lint.files import check_files
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.head import check_head
from kovar.resources.lint.installation import check_installation, pinned_ray
from kovar.resources.lint.kuberay import check_manifest
from kovar.resources.lint.labels import check_labels
from kovar.resources.lint.limits import check_limits
from kovar.resources.lint.machines import check_machines
from kovar.resources.lint.manifest import Manifest
from kovar.resources.lint.provider import check_provider
from kovar.resources.lint.readiness import check_readiness
from kovar.resources.lint.refusals import check_readable, of_error
from kovar.resources.lint.schema import check_schema
from kovar.resources.lint.secret import check_secrets
from kovar.resources.lint.source import Source
from kovar.resources.lint.start import check_start
from kovar.resources.lint.tpus import check_tpus

_RULES: Final[tuple[Callable[[ClusterYaml], Iterator[Finding]], ...]] = (
    check_limits,
    check_head,
    check_machines,
    check_tpus,
    check_chips,
    check_labels,
    check_provider,
    check_exposure,
    check_start,
    check_secrets,
    check_schema,
)


def lint_cluster(path: str | Path) -> tuple[Finding, ...]:
    """Find everything that is wrong or surprising in a cluster.yaml or manifest, by line.

    Raises:
        SpecError: the file cannot be read at all.
    """
    try:
        sources = _read(Path(path))
    except SpecError as error:
        if error.context["line"] is None:
            raise
        return (of_error(error, error.context["line"], error.field or ""),)
    # Where `ray up` may be run: here, or in a folder that holds the file.
    folders = (Path.cwd(), *Path(path).resolve().parents)
    return _sorted(chain.from_iterable(_lint(source, folders) for source in sources))


def unfilled(path: str | Path) -> tuple[Finding, ...]:
    """Find what is left to fill in before the cluster can start, by line."""
    try:
        sources = _read(Path(path))
    except SpecError as error:
        if error.context["line"] is None:
            raise
        return ()  # a file that is not YAML has worse problems
    return _sorted(chain.from_iterable(check_readiness(source) for source in sources))


def _read(path: Path) -> list[Source]:
    """Read the documents of a file; a manifest may stand among others."""
    documents = load_documents(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    for document in documents:
        if not isinstance(document.data, Mapping):
            raise document.error_at((), "the file must hold a mapping (key: value lines)")
    return [_source(document, lines) for document in documents]


def _source(document: Document, lines: list[str]) -> Source:
    if is_kuberay(document):
        return Manifest(document, lines)
    # Other objects of Kubernetes are only searched for secrets.
    return (Source if "apiVersion" in document.data else ClusterYaml)(document, lines)


def _lint(source: Source, folders: tuple[Path, ...]) -> Iterator[Finding]:
    ray = pinned_ray(folders)
    if isinstance(source, Manifest) and source.mapping(source.at):
        rules = (check_chips, check_labels, check_secrets)
        found = [*chain(*(rule(source) for rule in rules)), *check_manifest(source, ray=ray)]
    elif isinstance(source, ClusterYaml):
        found = [
            *chain(*(rule(source) for rule in _RULES)),
            *check_installation(source, ray=ray),
            *check_files(source, folders=folders),
        ]
    else:
        found = list(check_secrets(source))
    yield from found
    if isinstance(source, ClusterYaml | Manifest):
        yield from _unspoken(found, check_readable(source))


def _unspoken(found: list[Finding], refusals: Iterator[Finding]) -> Iterator[Finding]:
    """Keep refusals where no rule has spoken about that line or field."""
    lines = {finding.line for finding in found}
    fields = {finding.field for finding in found}
    for refusal in refusals:
        if refusal.line not in lines and refusal.field not in fields:
            fields.add(refusal.field)
            yield refusal


def _sorted(found: Iterable[Finding]) -> tuple[Finding, ...]:
    first: dict[tuple[int, str, str], str] = {}
    kept = []
    for one in sorted(set(found), key=lambda one: (one.line, one.field, one.rule, one.message)):
        # What YAML repeats by an alias is wrong on one line only.
        where = (one.line, one.rule, one.field.rpartition(".")[2])
        if first.setdefault(where, one.field) == one.field:
            kept.append(one)
    return tuple(kept)
