"""A trial as plain JSON, and back."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from kovar.tuning.record import Evaluation, Stay, TrialRecord


def trial_to_json(trial: TrialRecord) -> dict[str, Any]:
    """Return plain JSON types; a number that is not finite becomes null."""
    fields = asdict(trial) | {"cost": trial.cost, "tokens_per_second": trial.tokens_per_second}
    found: dict[str, Any] = finite(fields)
    return found


def trial_of_json(value: dict[str, Any]) -> TrialRecord:
    """Read what `trial_to_json` returned.

    Raises:
        KeyError, TypeError: a field is missing, or is not what it is said to be.
    """
    names = TrialRecord.__dataclass_fields__
    fields = {name: value[name] for name in names if name in value}
    return TrialRecord(
        **fields
        | {
            "metrics": _known(value["metrics"]),
            "history": tuple(
                Evaluation(one["step"], one["seconds"], _known(one["metrics"]))
                for one in value["history"]
            ),
            "stays": tuple(Stay(**stay) for stay in value["stays"]),
            "incidents": tuple(value["incidents"]),
        }
    )


def finite(value: Any) -> Any:
    """Replace numbers that are not finite, which JSON does not have, by None."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: finite(one) for key, one in value.items()}
        case list() | tuple():
            return [finite(one) for one in value]
    return value


def _known(metrics: dict[str, float | None]) -> dict[str, float]:
    return {name: math.nan if one is None else one for name, one in metrics.items()}
