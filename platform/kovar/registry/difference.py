"""What differs between two versions: spec, data, metrics, files and the other facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import JsonValue

from kovar.registry.version import Version

_SECTIONS: Final = ("spec", "data", "metrics")
_FILES: Final = "files"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One value that differs; None where a side has no such value."""

    path: str
    before: JsonValue
    after: JsonValue


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs from one version to another, by section; equal sections are empty."""

    before: str
    """`name@number`."""
    after: str
    spec: tuple[Change, ...]
    data: tuple[Change, ...]
    metrics: tuple[Change, ...]
    files: tuple[Change, ...]
    """The values are sizes and digests."""
    facts: tuple[Change, ...]
    """Everything else that the manifest states: method, precision, environment, parents, …"""

    def sections(self) -> dict[str, tuple[Change, ...]]:
        """Return section → what differs there, in the order to show them."""
        names = (*_SECTIONS, _FILES, "facts")
        return {name: getattr(self, name) for name in names}


def diff(before: Version, after: Version) -> Difference:
    """Compare two versions, of one model or of two."""
    left, right = (
        version.manifest.model_dump(mode="json", exclude_defaults=True)
        for version in (before, after)
    )
    files = [
        {each["path"]: f"{each['size_bytes']} B, sha256 {each['sha256']}" for each in side["files"]}
        for side in (left, right)
    ]
    others = [
        {key: value for key, value in side.items() if key not in (*_SECTIONS, _FILES)}
        for side in (left, right)
    ]
    changed = {name: _changes(left.get(name), right.get(name)) for name in _SECTIONS}
    return Difference(
        before=str(before),
        after=str(after),
        files=_changes(*files),
        facts=_changes(*others),
        **changed,
    )


def _changes(left: Any, right: Any) -> tuple[Change, ...]:
    before, after = dict(_leaves(left)), dict(_leaves(right))
    return tuple(
        Change(path=path, before=before.get(path), after=after.get(path))
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Flatten to dotted paths; a list is one value, so that a shift is not a change of each."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}" if path else str(key))
    elif value is not None:
        yield path, value
