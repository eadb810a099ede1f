"""What Ray's own JSON schema refuses, all of it at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kovar.config import FieldPath
from kovar.errors import did_you_mean
from kovar.resources.lint.finding import Finding
from kovar.resources.lint.source import Source


@cache
def ray_schema() -> dict[str, Any]:
    """Read the schema of cluster.yaml from the installed Ray, without importing Ray."""
    spec = find_spec("ray")
    assert spec is not None  # noqa: S101 Kovar depends on Ray
    (folder,) = spec.submodule_search_locations or []
    schema: dict[str, Any] = json.loads(
        (Path(folder) / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8")
    )
    return schema


def check_schema(source: Source) -> Iterator[Finding]:
    """Report what `ray up` would refuse before it talks to a cloud."""
    from jsonschema import Draft7Validator

    data = json.loads(json.dumps(source.document.data, default=str))
    for error in Draft7Validator(ray_schema()).iter_errors(data):
        path: FieldPath = tuple(error.absolute_path)
        match error.validator:
            case "additionalProperties":
                known = list(error.schema.get("properties", {}))
                for key in set(error.instance) - set(known):
                    yield _unknown_key(source, (*path, key), known)
            case "required":
                for key in set(error.validator_value) - set(error.instance):
                    yield source.error(
                        (*path, key), "schema", "Ray requires this key", fix="add it"
                    )
            case "type":
                yield source.error(
                    path,
                    "schema",
                    f"Ray wants {_article(error.validator_value)} here, not {error.instance!r:.60}",
                    fix=_type_fix(error.validator_value, error.instance),
                )
            case "minimum":
                yield source.error(
                    path,
                    "schema",
                    f"{error.instance} is below {error.validator_value}",
                    fix=f"write {error.validator_value} or more",
                )
            case _:
                yield source.error(path, "schema", error.message[:120], fix="see Ray's schema")


def _unknown_key(source: Source, path: FieldPath, known: list[str]) -> Finding:
    name = str(path[-1])
    return source.error(
        path,
        "schema",
        f"unknown key {name!r}",
        fix=did_you_mean(name, known) or f"remove it, or use one of {', '.join(sorted(known))}",
    )


def _article(kind: object) -> str:
    names = kind if isinstance(kind, list) else [kind]
    words = {
        "string": "text",
        "object": "a mapping",
        "array": "a list",
        "integer": "a whole number",
    }
    return " or ".join(words.get(str(name), f"a {name}") for name in names)


def _type_fix(kind: object, value: object) -> str:
    if kind == "string":
        shown = str(value).lower() if isinstance(value, bool) else value
        return f'put it in quotes: "{shown}"'
    if kind in ("integer", "number") and isinstance(value, str):
        return "write the number without quotes and without a unit"
    return f"write {_article(kind)}"
