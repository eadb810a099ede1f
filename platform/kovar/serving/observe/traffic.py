"""What endpoints do now: the difference of two readings of their metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kovar.serving.exchange import ANSWERED
from kovar.serving.observe.exposition import Sample, quantile
from kovar.serving.observe.serve_status import ServeStatus

FAILED: Final = frozenset({"internal", "model_failed"})
NOT_REFUSED: Final = FAILED | {ANSWERED, "client_gone"}
MODEL: Final = ("application", "model", "version")
APPLICATION: Final = ("application",)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionTraffic:
    """One version of one application, over the time between two readings.

    Attributes:
        application: name of the Serve application.
        model: name of the model.
        version: its number.
        digest: SHA-256 of its manifest.
        runtime: what executes it, and at which precision.
        num_replicas: replicas that serve it.
        num_answered: requests that were answered.
        num_refused: requests that were refused.
        num_failed: requests on which the server or the model failed.
        p50_s: median of the seconds to an answer; None without requests.
        p99_s: 99th percentile.
        num_texts: texts answered.
        queued_texts: texts that wait for it now, at all replicas.
        num_tokens: tokens that the runtime read, without padding.
        padding: share of the computed tokens that are padding; None where nothing ran.
    """

    application: str
    model: str
    version: str
    digest: str
    runtime: str
    num_replicas: int
    num_answered: int
    num_refused: int
    num_failed: int
    p50_s: float | None
    p99_s: float | None
    num_texts: int
    queued_texts: int
    num_tokens: int
    padding: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationTraffic:
    """One application, over the time between two readings.

    Attributes:
        application: name of the Serve application.
        queued_texts: texts that wait now, at all replicas.
        running_requests: requests that are not answered yet.
        num_tokens: tokens that the runtimes read, without padding.
        padding: share of the computed tokens that are padding; None where nothing ran.
        versions: what it serves.
        serve: what Serve says of it; None where Serve was not asked or does not know it.
    """

    application: str
    queued_texts: int
    running_requests: int
    num_tokens: int
    padding: float | None
    versions: tuple[VersionTraffic, ...]
    serve: ServeStatus | None = None


class Reading:
    """The metrics of all nodes at one moment.

    Args:
        at: the moment, in seconds.
        samples: of all nodes.
    """

    def __init__(self, at: float, samples: Iterable[Sample]) -> None:
        self.at = at
        self._by_name: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            self._by_name[sample.name].append(sample)

    def of(self, name: str) -> Sequence[Sample]:
        """Return the series of a metric."""
        return self._by_name.get(name, ())


def traffic_between(before: Reading | None, after: Reading) -> tuple[ApplicationTraffic, ...]:
    """Return what every application did between two readings; since its start, if one is None.

    A series that begins or falls between them belongs to a replica that has started: it counts
    from zero.
    """
    change = _Change(before or Reading(after.at, ()), after)
    applications = sorted({_key(one, APPLICATION)[0] for one in after.of("ray_kovar_version_info")})
    return tuple(_application(name, change) for name in applications)


def with_status(
    found: Sequence[ApplicationTraffic], statuses: Mapping[str, ServeStatus]
) -> tuple[ApplicationTraffic, ...]:
    """Add what Serve says of each application, and the applications without any replica."""
    known = {one.application: one for one in found}
    return tuple(
        replace(known.get(name) or _without_traffic(name), serve=statuses.get(name))
        for name in sorted({*known, *statuses})
    )


def _without_traffic(name: str) -> ApplicationTraffic:
    return ApplicationTraffic(
        application=name,
        queued_texts=0,
        running_requests=0,
        num_tokens=0,
        padding=None,
        versions=(),
    )


class _Change:
    def __init__(self, before: Reading, after: Reading) -> None:
        self.before, self.after = before, after

    def sums(self, name: str, labels: Sequence[str]) -> dict[tuple[str, ...], float]:
        """Sum what a counter grew by, for each combination of some of its labels."""
        known = {_identity(one): one.value for one in self.before.of(name)}
        grown: dict[tuple[str, ...], float] = defaultdict(float)
        for one in self.after.of(name):
            earlier = known.get(_identity(one), 0.0)
            grown[_key(one, labels)] += one.value - (earlier if earlier <= one.value else 0.0)
        return grown

    def now(self, name: str, labels: Sequence[str]) -> dict[tuple[str, ...], float]:
        """Sum a gauge over replicas, for each combination of some of its labels."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for one in self.after.of(name):
            sums[_key(one, labels)] += one.value
        return sums

    def tokens(self, labels: Sequence[str], key: tuple[str, ...]) -> tuple[int, float | None]:
        """Return the tokens that were computed, and which share of them came with padding."""
        tokens = self.sums("ray_kovar_tokens_total", labels).get(key, 0.0)
        padded = self.sums("ray_kovar_padded_tokens_total", labels).get(key, 0.0)
        return round(tokens), 1 - tokens / padded if padded else None


def _application(name: str, change: _Change) -> ApplicationTraffic:
    num_tokens, padding = change.tokens(APPLICATION, (name,))
    queued = change.now("ray_kovar_queued_texts", APPLICATION).get((name,), 0.0)
    running = change.now("ray_kovar_running_requests", APPLICATION).get((name,), 0.0)
    infos: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for one in change.after.of("ray_kovar_version_info"):
        if one.labels.get("application") == name:
            infos[_key(one, MODEL)].append(one)
    return ApplicationTraffic(
        application=name,
        queued_texts=round(queued),
        running_requests=round(running),
        num_tokens=num_tokens,
        padding=padding,
        versions=tuple(_version(key, infos[key], change) for key in sorted(infos)),
    )


def _version(key: tuple[str, ...], infos: Sequence[Sample], change: _Change) -> VersionTraffic:
    outcomes = change.sums("ray_kovar_requests_total", (*MODEL, "outcome"))
    mine = {outcome: value for (*of, outcome), value in outcomes.items() if tuple(of) == key}
    texts = change.sums("ray_kovar_texts_total", MODEL).get(key, 0.0)
    num_tokens, padding = change.tokens(MODEL, key)
    buckets = _buckets(key, change)
    labels = infos[0].labels
    return VersionTraffic(
        application=key[0],
        model=key[1],
        version=key[2],
        digest=labels.get("digest", ""),
        runtime=f"{labels.get('runtime', '')} {labels.get('precision', '')}".strip(),
        num_replicas=len({one.labels.get("replica") for one in infos}),
        num_answered=round(mine.get(ANSWERED, 0.0)),
        num_refused=round(sum(v for name, v in mine.items() if name not in NOT_REFUSED)),
        num_failed=round(sum(v for name, v in mine.items() if name in FAILED)),
        p50_s=quantile(0.5, buckets),
        p99_s=quantile(0.99, buckets),
        num_texts=round(texts),
        queued_texts=round(change.now("ray_kovar_queued_texts", MODEL).get(key, 0.0)),
        num_tokens=num_tokens,
        padding=padding,
    )


def _buckets(key: tuple[str, ...], change: _Change) -> list[tuple[float, float]]:
    grown = change.sums("ray_kovar_request_seconds_bucket", (*MODEL, "le"))
    ends = {le: value for (*of, le), value in grown.items() if tuple(of) == key}
    return sorted((math.inf if le == "+Inf" else float(le), value) for le, value in ends.items())


def _key(sample: Sample, labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(sample.labels.get(label, "") for label in labels)


def _identity(sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset(sample.labels.items())
