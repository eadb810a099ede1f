"""The policy as Serve runs it: options of the deployment, numbers of a replica."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from kovar.inference import Load
from kovar.serving.autoscaling.policy import ARRIVING, LENGTH, LIGHT, QUEUED, SPEED, Rules
from kovar.serving.spec import Autoscaling, ReplicaRange

POLICY: Final = "kovar.serving.autoscaling.policy:LatencyPolicy"

# Replicas and routers tell the controller their numbers so often. Serve's default of ten seconds
# would be added to every reaction.
METRICS_INTERVAL_S: Final = 1.0
LOOK_BACK_S: Final = 5.0


def rules_of(replicas: ReplicaRange, autoscaling: Autoscaling) -> Rules:
    """Return the numbers that the policy obeys."""
    return Rules(min_replicas=replicas.min, max_replicas=replicas.max, **autoscaling.model_dump())


def autoscaling_options(replicas: ReplicaRange, autoscaling: Autoscaling) -> dict[str, Any]:
    """Return the fields of Serve's `AutoscalingConfig`.

    Serve's own delays are off, because the policy has its own.
    """
    # One replica proves that a version starts before an application that may sleep does so. Else
    # the field stays away: with it, a new deployment under load would begin with that number.
    first: dict[str, Any] = {} if replicas.min else {"initial_replicas": 1}
    return {
        **first,
        "min_replicas": replicas.min,
        "max_replicas": replicas.max,
        "metrics_interval_s": METRICS_INTERVAL_S,
        "look_back_period_s": LOOK_BACK_S,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "policy": {
            "policy_function": POLICY,
            "policy_kwargs": asdict(rules_of(replicas, autoscaling)),
        },
    }


@contextmanager
def quiet_metrics_interval() -> Iterator[None]:
    """Ignore Serve's announcement that environment variables will replace `metrics_interval_s`.

    In Ray 2.60 nothing reads those variables: the field is the only way.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*metrics_interval_s", category=DeprecationWarning
        )
        yield


def reported(load: Load) -> dict[str, float]:
    """Return what a replica reports to the policy; 0 for what is not known yet."""
    return {
        ARRIVING: load.arriving_tokens_per_s,
        QUEUED: float(load.queued_tokens),
        SPEED: load.tokens_per_s or 0.0,
        LIGHT: load.light_s or 0.0,
        LENGTH: load.tokens_per_text or 0.0,
    }
