"""How many replicas an application wants: a pure decision from its traffic and a clock.

Imports the standard library alone: Serve hands the class to its controller by value, and the
controller need not have Kovar.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

logger = logging.getLogger("ray.serve")

ARRIVING: Final = "kovar_arriving_tokens_per_s"
QUEUED: Final = "kovar_queued_tokens"
SPEED: Final = "kovar_tokens_per_s"
LIGHT: Final = "kovar_light_s"
LENGTH: Final = "kovar_tokens_per_text"
"""What each replica reports to Serve; 0 for what is not known yet."""

# Share of a replica's speed that may be used. Above 0.85, waiting grows faster than any forecast
# of it; below 0.3, an objective near the time of a single batch would ask for endless replicas.
MAX_USE: Final = 0.85
MIN_USE: Final = 0.3
# A replica is given back only if the rest could bear this much more traffic.
DOWN_MARGIN: Final = 1.15
# Within this time a backlog has to be gone. A new replica itself takes some ten seconds to start,
# and stays for the downscale delay: one that comes for a shorter backlog only costs.
DRAIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the number of replicas obeys; the fields of `kovar.serving.spec.Autoscaling`.

    Attributes:
        min_replicas: with no traffic.
        max_replicas: under any traffic.
        latency_objective_s: 99 of 100 answers should come within so many seconds.
        upscale_delay_s: more replicas must have been wanted for so long.
        downscale_delay_s: fewer replicas must have been enough for so long.
        to_zero_delay_s: the last replica goes after so long without a request.
    """

    min_replicas: int
    max_replicas: int
    latency_objective_s: float
    upscale_delay_s: float
    downscale_delay_s: float
    to_zero_delay_s: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """What all replicas of an application are asked together, and what one of them can do.

    Attributes:
        arriving_tokens_per_s: tokens offered.
        queued_tokens: tokens that wait.
        tokens_per_s: speed of one replica with full batches; None if it is not known.
        light_s: seconds of a batch of one text; None if it is not known.
    """

    arriving_tokens_per_s: float
    queued_tokens: float
    tokens_per_s: float | None = None
    light_s: float | None = None


def share_of_use(light_s: float, objective_s: float) -> float:
    """Return the share of its speed at which a replica just keeps the objective.

    Batches grow with the traffic: one that takes `T` collects the texts of the next, so
    `T = light / (1 - use)`. A text waits for one batch at most and runs in the next: `2 T`.
    """
    return min(MAX_USE, max(MIN_USE, 1.0 - 2.0 * light_s / objective_s))


def wanted_replicas(
    traffic: Traffic, rules: Rules, *, running: int, starting: int = 0, margin: float = 1.0
) -> int | None:
    """Return the fewest replicas that keep the objective, within no bounds.

    Args:
        traffic: what is asked.
        rules: the objective.
        running: replicas that share the queue now.
        starting: replicas on their way. Until they are there the queue grows whatever is decided,
            so it asks for no more of them.
        margin: how much more traffic they should be able to bear.

    Returns:
        None when no replica has been measured yet, and there is traffic.
    """
    arriving = traffic.arriving_tokens_per_s * margin
    if arriving <= 0.0 and traffic.queued_tokens <= 0.0:
        return 0
    if not traffic.tokens_per_s:
        return None
    use = share_of_use(traffic.light_s or 0.0, rules.latency_objective_s)
    steady = arriving / (traffic.tokens_per_s * use)
    bearable = running * traffic.tokens_per_s * rules.latency_objective_s
    backlog = 0.0 if starting > 0 else max(0.0, traffic.queued_tokens - bearable)
    draining = (arriving + backlog / DRAIN_S) / traffic.tokens_per_s
    return max(1, math.ceil(max(steady, draining)))


class Extreme:
    """The largest (`sign=1`) or smallest (`sign=-1`) value of a sliding window of time."""

    def __init__(self, window_s: float, *, sign: int) -> None:
        self._window_s, self._sign = window_s, sign
        self._candidates: deque[tuple[float, int]] = deque()
        self._since: float | None = None

    def add(self, now: float, value: int) -> None:
        """Note the value from a moment on."""
        self._since = now if self._since is None else self._since
        while self._candidates and (value - self._candidates[-1][1]) * self._sign >= 0:
            self._candidates.pop()
        self._candidates.append((now, value))
        while self._candidates[0][0] < now - self._window_s:
            self._candidates.popleft()

    def value(self, now: float) -> int | None:
        """Return the extreme; None until the window is full."""
        if self._since is None or now - self._since < self._window_s:
            return None
        return self._candidates[0][1]


class LatencyPolicy:
    """Follows the traffic, and neither flutters nor forgets.

    More replicas come once they have been wanted through all of `upscale_delay_s`, and then as
    many as were wanted throughout. Replicas go once fewer would have been enough, with a margin,
    through all of `downscale_delay_s`. So traffic that swings faster than that changes nothing.

    Args:
        rules: the numbers of `Rules`.
    """

    def __init__(self, **rules: Any) -> None:
        self.rules = Rules(**rules)
        self._up = Extreme(self.rules.upscale_delay_s, sign=-1)
        self._down = Extreme(self.rules.downscale_delay_s, sign=1)
        self._zero = Extreme(self.rules.to_zero_delay_s, sign=1)
        self._speed: float | None = None
        self._light_s: float | None = None
        self._decided = self.rules.min_replicas

    def decide(self, now: float, traffic: Traffic, *, running: int, target: int) -> int:
        """Return the number of replicas to have from now on.

        Args:
            now: seconds; moments only move forward.
            traffic: what is asked now.
            running: replicas that answer now.
            target: number decided last.
        """
        # A replica's speed belongs to the version: it stays known when no replica is left.
        self._speed = traffic.tokens_per_s or self._speed
        self._light_s = traffic.light_s or self._light_s
        known = Traffic(
            traffic.arriving_tokens_per_s, traffic.queued_tokens, self._speed, self._light_s
        )
        wanted, enough = (
            self._bounded(
                wanted_replicas(
                    known, self.rules, running=running, starting=target - running, margin=margin
                ),
                target,
            )
            for margin in (1.0, DOWN_MARGIN)
        )
        if target > self._decided:
            # Serve itself starts the first replica for a request that finds none: it counts as
            # wanted, or a client that gives up early would end the replica's start.
            enough = max(enough, target)
        self._up.add(now, wanted)
        self._down.add(now, enough)
        self._zero.add(now, enough)
        decided = self._decided = self._decision(now, target)
        if decided != target:
            logger.info(
                "%d replicas instead of %d: %.0f tokens/s arrive, %.0f wait, one answers %.0f/s",
                decided,
                target,
                known.arriving_tokens_per_s,
                known.queued_tokens,
                known.tokens_per_s or 0.0,
            )
        return decided

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Decide for Serve; `context` is a `ray.serve.config.AutoscalingContext`."""
        traffic = traffic_of(context.raw_metrics or {}, context.total_queued_requests or 0.0)
        decided = self.decide(
            context.current_time,
            traffic,
            running=context.current_num_replicas,
            target=context.target_num_replicas,
        )
        return decided, {}

    def _bounded(self, wanted: int | None, target: int) -> int:
        """Keep what there is while nothing is known."""
        value = target if wanted is None else wanted
        return min(self.rules.max_replicas, max(self.rules.min_replicas, value))

    def _decision(self, now: float, target: int) -> int:
        up = self._up.value(now)
        if up is not None and up > target:
            return up
        down = self._down.value(now)
        if down is None or down >= target:
            return target
        # The last replica has a delay of its own.
        return down if down > 0 or self._zero.value(now) == 0 else min(target, 1)


def traffic_of(
    metrics: Mapping[str, Mapping[Any, Sequence[Any]]], queued_requests: float
) -> Traffic:
    """Sum up what the replicas have reported last.

    Args:
        metrics: metric → replica → its recent values, each with `.value`.
        queued_requests: requests that wait in front of the replicas, in Serve's routers.
    """
    newest = {
        name: [series[-1].value for series in metrics.get(name, {}).values() if series]
        for name in (ARRIVING, QUEUED, SPEED, LIGHT, LENGTH)
    }
    length = _mean(newest[LENGTH]) or 1.0
    return Traffic(
        arriving_tokens_per_s=sum(newest[ARRIVING]),
        queued_tokens=sum(newest[QUEUED]) + queued_requests * length,
        tokens_per_s=_mean(newest[SPEED]),
        light_s=_mean(newest[LIGHT]),
    )


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if value > 0.0]
    return sum(known) / len(known) if known else None
