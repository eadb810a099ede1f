"""What the linter says about one line of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that surprises.

    Args:
        line: 1-based line of the file.
        field: dotted path of the field.
        message: what is wrong, in one line.
        fix: what to do about it.
        severity: an error is refused, never starts, loses work or lets strangers in; a warning
            costs money or surprises.
        rule: short name of the rule, for scripts.
    """

    line: int
    field: str
    message: str
    fix: str
    severity: Severity
    rule: str
