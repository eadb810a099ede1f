"""What Kovar's own readers refuse: all of it, though a reader stops at its first mistake."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from kovar.config import Document, FieldPath, dotted
from kovar.errors import UserError
from kovar.resources.cluster import Cluster
from kovar.resources.cluster_file import read_cluster_file
from kovar.resources.kuberay import read_kuberay
from kovar.resources.lint.cluster_yaml import ClusterYaml
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.manifest import Manifest
from kovar.resources.lint.source import Source

_STAND_IN: Final = "stand-in head"


def check_readable(source: ClusterYaml | Manifest) -> Iterator[Finding]:
    """Read the whole file, then each of its node types alone."""
    if isinstance(source, Manifest):
        yield from _of_manifest(source)
    else:
        yield from _of_cluster(source)


def _of_manifest(source: Manifest) -> Iterator[Finding]:
    with _without_warnings():
        yield from _refused(source, source.document.data, read_kuberay)
        groups = (*source.at, "workerGroupSpecs")
        for index, group in enumerate(source.items(groups)):
            alone = copy.deepcopy(source.document.data)
            _put(alone, groups, [group])
            yield from _refused(source, alone, read_kuberay, moved=index)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep the reader's warnings out of the log: rules say the same, with a line."""
    log = logging.getLogger(read_kuberay.__module__)
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


def _of_cluster(source: ClusterYaml) -> Iterator[Finding]:
    data = source.document.data
    yield from _refused(source, data, read_cluster_file)
    for kind in source.node_types:
        name = kind.path[-1]
        types = {name: source.get(kind.path)}
        if not kind.is_head:
            types[_STAND_IN] = {"resources": {"CPU": 0}, "node_config": {}}
        head = name if kind.is_head else _STAND_IN
        alone = {**data, "head_node_type": head, "available_node_types": types}
        yield from _refused(source, alone, read_cluster_file)


def of_error(error: UserError, line: int, field: str) -> Finding:
    """Say what an error says as a finding."""
    got, allowed = error.context["got"], error.context["allowed"]
    message = error.message + (f", not {got}" if got else "")
    fix = error.hint or (f"allowed: {allowed}" if allowed else "correct it")
    return Finding(line, field, message, fix, "error", "kovar")


def _refused(
    source: Source, data: Any, read: Callable[[Document], Cluster], *, moved: int = 0
) -> Iterator[Finding]:
    try:
        read(Document.of(data))
    except UserError as error:
        field = (error.field or "").replace("workerGroupSpecs[0]", f"workerGroupSpecs[{moved}]")
        path = _path_of(source, field)
        yield of_error(error, source.document.line(path), dotted(path))


def _put(data: Any, path: FieldPath, value: Any) -> None:
    for part in path[:-1]:
        data = data[part]
    data[path[-1]] = value


def _path_of(source: Source, field: str) -> FieldPath:
    """Split a dotted path where the keys themselves may have dots."""
    path: list[str | int] = []
    rest = re.sub(r"\[(\d+)\]", r".\1", field)
    while rest:
        here = source.get(tuple(path))
        keys = sorted(map(str, here), key=len, reverse=True) if isinstance(here, Mapping) else []
        key = next((one for one in keys if rest == one or rest.startswith(f"{one}.")), None)
        if key is None:
            # The last key may be one that is missing, dots and all.
            last = isinstance(here, Mapping) and "/" in rest
            key = rest if last else rest.partition(".")[0]
        path.append(int(key) if isinstance(here, list) and key.isdigit() else key)
        rest = rest[len(key) + 1 :]
    return tuple(path)
