"""A file under examination: its fields, whatever their types, and the lines that they stand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kovar.config import Document, FieldPath, dotted
from kovar.resources.lint.finding import Finding, Severity


@dataclass(frozen=True)
class Source:
    """A document that rules can question without checking types: what is absent is empty.

    Args:
        document: the parsed file.
        lines: its text.
    """

    document: Document
    lines: Sequence[str] = field(repr=False)

    def get(self, path: FieldPath) -> Any:
        """Return the value at `path`, None when there is none."""
        value = self.document.data
        for part in path:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def has(self, path: FieldPath) -> bool:
        """Whether the last key of `path` is written, even if it is empty."""
        return path[-1] in self.mapping(path[:-1])

    def mapping(self, path: FieldPath) -> Mapping[str, Any]:
        """Return the mapping at `path`, empty when there is none."""
        value = self.get(path)
        return value if isinstance(value, Mapping) else {}

    def items(self, path: FieldPath) -> list[Any]:
        """Return the list at `path`, empty when there is none."""
        value = self.get(path)
        return value if isinstance(value, list) else []

    def number(self, path: FieldPath) -> float | None:
        """Return the number at `path`; None when there is none."""
        value = self.get(path)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def texts(self, path: FieldPath = ()) -> Iterator[tuple[FieldPath, str]]:
        """Walk through every text below `path`."""
        value = self.get(path)
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, Mapping):
            for key in value:
                yield from self.texts((*path, key))
        elif isinstance(value, list):
            for index in range(len(value)):
                yield from self.texts((*path, index))

    def error(
        self, path: FieldPath, rule: str, message: str, *, fix: str, part: str = ""
    ) -> Finding:
        """Build a finding for what is refused, never starts, loses work or lets strangers in.

        Args:
            path: the field.
            rule: name of the rule.
            message: what is wrong.
            fix: what to do.
            part: the part of a long text that is at fault, to point at its own line.
        """
        return self._finding(path, rule, message, fix, part, "error")

    def warning(
        self, path: FieldPath, rule: str, message: str, *, fix: str, part: str = ""
    ) -> Finding:
        """Build a finding for what costs money or surprises; arguments as for `error`."""
        return self._finding(path, rule, message, fix, part, "warning")

    def _finding(
        self, path: FieldPath, rule: str, message: str, fix: str, part: str, severity: Severity
    ) -> Finding:
        return Finding(self._line(path, part), dotted(path), message, fix, severity, rule)

    def _line(self, path: FieldPath, part: str) -> int:
        """Find the line of a field; of a part of it where the text goes over several lines."""
        start = self.document.line(tuple(map(_key, path)))
        text = self.get(path)
        if not part or not isinstance(text, str):
            return start
        for number in range(start, min(len(self.lines), start + len(text)) + 1):
            if part in self.lines[number - 1]:
                return number
        return start


def _key(part: str | int) -> str | int:
    return part if isinstance(part, int) else str(part)
