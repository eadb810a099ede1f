"""A rehearsal: the very policy that Serve runs, over a trace of traffic, in virtual time.

Between two decisions, a second apart, the queue is a fluid: tokens flow in as the trace says and
out as fast as the replicas that are up can answer. A text's latency is the time that the tokens
before it take, and that of the batches around it (see `share_of_use`).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from kovar.inference.load import ARRIVAL_WINDOW_S
from kovar.serving.autoscaling.policy import LatencyPolicy, Rules, Traffic
from kovar.serving.autoscaling.trace import Trace

# Replicas report every second, and the controller hears of it in the next.
REPORT_DELAY_S: Final = 1
FLAP_WINDOW_S: Final = 300
# Above this use of the replicas, the fluid's own queue tells the latency.
_NEARLY_FULL: Final = 0.98


@dataclass(frozen=True)
class ReplicaSpeed:
    """What one replica can do.

    Args:
        tokens_per_s: with full batches.
        light_s: seconds of a batch of one text.
        start_s: from the decision to its first answer.
        max_queued_tokens: more are refused; unbounded if absent.
    """

    tokens_per_s: float
    light_s: float
    start_s: float
    max_queued_tokens: float = math.inf


@dataclass
class Replay:
    """What happened, second by second.

    Args:
        rules: what the policy obeyed.
        arriving: tokens that arrived.
        requests: requests that arrived.
        running: replicas that answered.
        target: replicas that the policy wanted.
        waiting_s: time that the tokens before a text took; infinite while no replica runs.
        batch_s: time of a batch.
        use: share of the replicas' speed that was used.
        refused: requests that found the queue full.
    """

    rules: Rules
    arriving: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    waiting_s: list[float] = field(default_factory=list)
    batch_s: list[float] = field(default_factory=list)
    use: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    @property
    def replica_hours(self) -> float:
        """What was paid for: starting replicas, too."""
        return sum(map(max, self.running, self.target)) / 3600

    @property
    def num_changes(self) -> int:
        """How often the number that was wanted changed."""
        return sum(before != after for before, after in pairwise(self.target))

    @property
    def num_flaps(self) -> int:
        """How often a change was taken back within five minutes."""
        flaps, last, direction = 0, -math.inf, 0
        for second, (before, after) in enumerate(pairwise(self.target), start=1):
            if before == after:
                continue
            turned = (after > before) != (direction > 0) and direction != 0
            flaps += turned and second - last <= FLAP_WINDOW_S
            last, direction = second, 1 if after > before else -1
        return flaps

    def latency_at(self, second: int, quantile: float) -> float:
        """Return a quantile of the latency of one second's requests, in seconds.

        A text waits for the rest of the batch that runs, if one does, and then runs itself.
        """
        batches = 1.0 + self.use[second] * quantile
        return self.waiting_s[second] + batches * self.batch_s[second]

    def latency(self, quantile: float) -> float:
        """Return a quantile of the latency over all requests that were not refused, in seconds."""
        asked = [all_ - gone for all_, gone in zip(self.requests, self.refused, strict=True)]
        answered = sorted(
            (self.latency_at(second, quantile), count)
            for second, count in enumerate(asked)
            if count > 0.0
        )
        wanted = quantile * sum(count for _, count in answered)
        for latency, count in answered:
            wanted -= count
            if wanted <= 0:
                return latency
        return answered[-1][0] if answered else 0.0


class _Fleet:
    """Replicas that run and start."""

    def __init__(self, running: int, start_s: float) -> None:
        self.running = running
        self._start_s = start_s
        self._starting: deque[float] = deque()

    def follow(self, now: float, target: int) -> None:
        """Start or stop replicas; those that still start go first."""
        while self._starting and self._starting[0] <= now:
            self._starting.popleft()
            self.running += 1
        while self.running + len(self._starting) < target:
            self._starting.append(now + self._start_s)
        while self._starting and self.running + len(self._starting) > target:
            self._starting.pop()
        self.running = min(self.running, target)


def replay(trace: Trace, rules: Rules, speed: ReplicaSpeed) -> Replay:
    """Run the policy over a trace.

    Args:
        trace: the traffic.
        rules: what the policy obeys.
        speed: what one replica can do, as measured.
    """
    policy = LatencyPolicy(**{name: getattr(rules, name) for name in rules.__slots__})
    first = max(1, rules.min_replicas)
    fleet, target, backlog = _Fleet(first, speed.start_s), first, 0.0
    recent: deque[float] = deque([0.0] * int(ARRIVAL_WINDOW_S), maxlen=int(ARRIVAL_WINDOW_S))
    reports: deque[Traffic] = deque([Traffic(0.0, 0.0)] * (REPORT_DELAY_S + 1))
    out = Replay(rules)
    for second in range(trace.seconds):
        tokens, requests = trace.tokens[second], trace.requests[second]
        if fleet.running == 0 and target == 0 and requests > 0.0:
            target = 1  # as Serve does at once
        fleet.follow(second, target)
        room = speed.max_queued_tokens * max(1, fleet.running)
        capacity = fleet.running * speed.tokens_per_s
        queued = backlog + max(0.0, tokens - capacity)
        refused = min(tokens, max(0.0, queued - room))
        out.use.append(min(_NEARLY_FULL, tokens / capacity) if capacity else 0.0)
        out.batch_s.append(speed.light_s / (1.0 - out.use[-1]))
        waiting = backlog + max(0.0, tokens - refused - capacity)
        out.waiting_s.append(waiting / capacity if capacity else math.inf)
        backlog = max(0.0, backlog + tokens - refused - capacity)
        recent.append(tokens)
        reports.append(
            Traffic(sum(recent) / ARRIVAL_WINDOW_S, backlog, speed.tokens_per_s, speed.light_s)
        )
        target = policy.decide(second, reports.popleft(), running=fleet.running, target=target)
        out.arriving.append(tokens)
        out.requests.append(requests)
        out.running.append(fleet.running)
        out.target.append(target)
        out.refused.append(requests * refused / tokens if tokens else 0.0)
    _wait_for_replicas(out)
    return out


def _wait_for_replicas(out: Replay) -> None:
    """Give requests that came while no replica ran the time until one did."""
    later = math.inf
    for second in range(len(out.waiting_s) - 1, -1, -1):
        if math.isinf(out.waiting_s[second]):
            out.waiting_s[second] = later
        later = out.waiting_s[second] + 1.0
