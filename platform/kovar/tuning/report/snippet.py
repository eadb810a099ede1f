"""The values of a point as the lines of a fine-tuning spec."""

from __future__ import annotations

from typing import Any

import yaml

from kovar.tuning.points import Point


def snippet(point: Point) -> str:
    """Write a point as YAML, nested as a spec nests it, to be copied into one."""
    nested: dict[str, Any] = {}
    for path, value in point.items():
        *sections, name = path.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return yaml.safe_dump(nested, sort_keys=False, default_flow_style=False).rstrip()
