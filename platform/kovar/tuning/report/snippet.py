"""The values of a point as the lines of a fine-tuning spec."""

from __future__ import annotations

import yaml

from kovar.tuning.fields import with_values
from kovar.tuning.points import Point


def snippet(point: Point) -> str:
    """Write a point as YAML, nested as a spec nests it, to be copied into one."""
    nested = with_values({}, point)
    in_order = dict.fromkeys(path.partition(".")[0] for path in point)
    nested = {key: nested[key] for key in in_order}
    return yaml.safe_dump(nested, sort_keys=False, default_flow_style=False).rstrip()
