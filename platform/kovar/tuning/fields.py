"""A fine-tuning spec with some of its fields changed."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from kovar.config import Document, dotted, first_mistake
from kovar.training import FineTuneSpec
from kovar.tuning.search import Point


def with_values(fields: dict[str, Any], values: Point) -> dict[str, Any]:
    """Return a copy of nested `fields` with the values at the dotted paths replaced.

    Outer paths come first. A bare name that stands for a block (`optimizer: sgd`) becomes one when
    a field within it is replaced.
    """
    changed = dict(fields)
    for path in sorted(values, key=lambda path: path.count(".")):
        *parents, last = path.split(".")
        here = changed
        for parent in parents:
            nested = here.get(parent)
            if isinstance(nested, str):
                nested = {"kind": nested}
            here[parent] = dict(nested) if isinstance(nested, dict) else {}
            here = here[parent]
        here[last] = values[path]
    return changed


def validated(
    document: Document, section: str, fields: dict[str, Any], values: Point
) -> FineTuneSpec:
    """Validate a changed base.

    Raises:
        SpecError: at the line of the sweep that makes the mistake.
    """
    try:
        return FineTuneSpec.model_validate_json(json.dumps(fields))
    except ValidationError as problem:
        mistake = first_mistake(FineTuneSpec, fields, problem)
    at_fault = dotted(mistake.path)
    key = _key_at_fault(at_fault, values)
    others = ", ".join(f"{path}: {value}" for path, value in values.items() if path != key)
    raise document.error_at(
        (section, key),
        f"{at_fault}: {mistake.message}" + (f" (with {others})" if others else ""),
        got=values[key],
        allowed=mistake.allowed,
        hint=mistake.hint,
    )


def _key_at_fault(at_fault: str, values: Point) -> str:
    """Choose the changed path that holds the field at fault, or else lies within it."""
    holding = (key for key in values if f"{at_fault}.".startswith(f"{key}."))
    within = (key for key in values if f"{key}.".startswith(f"{at_fault}."))
    return next(holding, None) or next(within, None) or next(iter(values))
