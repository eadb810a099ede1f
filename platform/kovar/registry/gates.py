"""Gates: what a version must prove before a protected alias may point at it.

`judge` decides from evidence alone; `promotion.py` collects the evidence and acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import Field, JsonValue, field_validator, model_validator

from kovar.config import Config
from kovar.registry.comparison import compare_pairs
from kovar.registry.manifest import Manifest
from kovar.registry.metrics import numbers_of
from kovar.registry.predictions import PREDICTIONS_FILE, Predictions
from kovar.registry.version import GateResult, GoldenResult, Version

DEFAULT_DATASET: Final = "evaluation"

SECTIONS: Final[Mapping[str, Callable[[Manifest], bool]]] = {
    "Intended use": lambda manifest: bool(manifest.intended_use.strip()),
    "Data": lambda manifest: manifest.data is not None,
    "Metrics": lambda manifest: bool(manifest.metrics),
    "Limits": lambda manifest: bool(manifest.limits.strip()),
    "Lineage": lambda manifest: manifest.base_model is not None or bool(manifest.parents),
}
"""Section of the card → whether a manifest has something to say there."""


class MetricBound(Config):
    """A metric must lie within bounds."""

    dataset: str = Field(default=DEFAULT_DATASET, description="data set that it is measured on")
    metric: str = Field(description="name; dots lead inwards: accuracy, per_class.negative.f1")
    minimum: float | None = Field(default=None, description="smallest value that passes")
    maximum: float | None = Field(default=None, description="largest value that passes")

    @model_validator(mode="after")
    def _bounds(self) -> MetricBound:
        if self.minimum is None and self.maximum is None:
            raise ValueError("give a minimum, a maximum or both")
        return self


class BetterThanIncumbent(Config):
    """The accuracy must exceed that of the version that the alias points at.

    A paired bootstrap test over the rows that both versions were evaluated on; both need their
    predictions. The first version of an alias passes.
    """

    dataset: str = Field(default=DEFAULT_DATASET, description="data set that both predicted")
    by: float = Field(
        default=0.0,
        gt=-1,
        lt=1,
        description="δ: the accuracy's gain must exceed this; negative allows a small loss",
    )
    confidence: float = Field(
        default=0.95, ge=0.5, lt=1, description="confidence that it does, one-sided"
    )
    num_resamples: int = Field(
        default=10_000, ge=1_000, le=1_000_000, description="number of bootstrap resamples"
    )
    seed: int = Field(default=0, ge=0, description="seed of the resampling")


class Gates(Config):
    """The gates of one alias; all that are named must pass."""

    metrics: tuple[MetricBound, ...] = Field(default=(), description="bounds of metrics")
    better_than_incumbent: BetterThanIncumbent | None = Field(
        default=None, description="test against the version that the alias points at"
    )
    golden_parity: tuple[str, ...] = Field(
        default=(), description="runtimes that must reproduce the golden examples"
    )
    card_sections: tuple[str, ...] = Field(
        default=(), description="sections of the card that must not be empty"
    )
    two_people: bool = Field(
        default=False, description="somebody other than who promotes must have approved"
    )

    @field_validator("metrics", "golden_parity", "card_sections", mode="before")
    @classmethod
    def _from_list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("card_sections")
    @classmethod
    def _known(cls, sections: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(sections) - set(SECTIONS)):
            raise ValueError(f"no such section: {unknown[0]!r}; there are {', '.join(SECTIONS)}")
        return sections


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the gates look at."""

    candidate: Version
    metrics: Mapping[str, Mapping[str, JsonValue]]
    """Data set → metrics of the candidate, from its own run and from later evaluations."""
    incumbent: Version | None
    candidate_predictions: Predictions | None
    incumbent_predictions: Predictions | None
    golden: Mapping[str, GoldenResult]
    """Runtime → its latest check of the candidate."""
    approvers: tuple[str, ...]
    promoter: str


def judge(gates: Gates, evidence: Evidence) -> tuple[GateResult, ...]:
    """Ask every gate; equal evidence gives equal results."""
    return tuple(_judge(gates, evidence))


def _judge(gates: Gates, evidence: Evidence) -> Iterator[GateResult]:
    manifest = evidence.candidate.manifest
    for bound in gates.metrics:
        yield _judge_metric(bound, evidence.metrics)
    if gates.better_than_incumbent:
        yield _judge_better(gates.better_than_incumbent, evidence)
    for runtime in gates.golden_parity:
        yield _judge_golden(runtime, evidence.golden.get(runtime))
    for section in gates.card_sections:
        filled = SECTIONS[section](manifest)
        found = "is there" if filled else "is empty; state it in the spec and register again"
        yield GateResult(
            gate=f"card_sections: {section}",
            passed=filled,
            message=f'the card\'s section "{section}" {found}',
        )
    if gates.two_people:
        yield _judge_people(evidence)


def _judge_metric(bound: MetricBound, metrics: Mapping[str, Mapping[str, JsonValue]]) -> GateResult:
    name = f"{bound.dataset}.{bound.metric}"
    gate = f"metrics: {name}"
    value = dict(numbers_of(metrics.get(bound.dataset, {}))).get(bound.metric)
    limits = {
        key: limit
        for key, limit in (("minimum", bound.minimum), ("maximum", bound.maximum))
        if limit is not None
    }
    needed = " and ".join(
        f"at {'least' if key == 'minimum' else 'most'} {limit:.6g}" for key, limit in limits.items()
    )
    if value is None:
        message = f"{name} was not measured; it must be {needed}"
        return GateResult(gate=gate, passed=False, message=message, numbers=limits)
    passed = limits.get("minimum", value) <= value <= limits.get("maximum", value)
    return GateResult(
        gate=gate,
        passed=passed,
        message=f"{name} is {value:.6g}; it must be {needed}",
        numbers={"value": value, **limits},
    )


def _judge_better(better: BetterThanIncumbent, evidence: Evidence) -> GateResult:
    gate = f"better_than_incumbent: {better.dataset}"

    def refuse(message: str) -> GateResult:
        return GateResult(gate=gate, passed=False, message=message)

    if evidence.incumbent is None:
        return GateResult(gate=gate, passed=True, message="there is no incumbent to be better than")
    found = []
    for version, predictions in (
        (evidence.candidate, evidence.candidate_predictions),
        (evidence.incumbent, evidence.incumbent_predictions),
    ):
        of_dataset = predictions.datasets.get(better.dataset) if predictions else None
        if of_dataset is None:
            return refuse(
                f"{version} has no predictions for {better.dataset!r} ({PREDICTIONS_FILE}): "
                "the two cannot be compared row by row"
            )
        found.append(of_dataset)
    candidate, incumbent = found
    if (candidate.rows, candidate.labels) != (incumbent.rows, incumbent.labels):
        return refuse(
            f"{evidence.candidate} and {evidence.incumbent} were evaluated on different rows: "
            "evaluate both on the same data"
        )
    compared = compare_pairs(
        candidate.correct(),
        incumbent.correct(),
        confidence=better.confidence,
        num_resamples=better.num_resamples,
        seed=better.seed,
    )
    return GateResult(
        gate=gate,
        passed=compared.lower > better.by,
        message=f"accuracy {compared.candidate:.4f} against {compared.incumbent:.4f} of "
        f"{evidence.incumbent} on {compared.num_rows:,} rows: {compared.difference:+.4f}, "
        f"{better.confidence:.4g} lower bound {compared.lower:+.4f}; "
        f"the bound must exceed {better.by:+.4f}",
        numbers={
            "candidate": compared.candidate,
            "incumbent": compared.incumbent,
            "difference": compared.difference,
            "lower_bound": compared.lower,
            "by": better.by,
            "num_rows": float(compared.num_rows),
        },
    )


def _judge_golden(runtime: str, result: GoldenResult | None) -> GateResult:
    gate = f"golden_parity: {runtime}"
    if result is None:
        message = f"{runtime} has not been checked against the golden examples"
        return GateResult(gate=gate, passed=False, message=message)
    numbers = {"tolerance": result.tolerance}
    found = "could not be compared"
    if result.difference is not None:
        numbers["difference"] = result.difference
        found = f"differs by up to {result.difference:.3g}"
    return GateResult(
        gate=gate,
        passed=result.passed,
        message=f"{runtime} on {result.chip} {found}; at most {result.tolerance:.3g} is allowed",
        numbers=numbers,
    )


def _judge_people(evidence: Evidence) -> GateResult:
    others = sorted(set(evidence.approvers) - {evidence.promoter})
    found = f"approved by {', '.join(others)}" if others else "approved by nobody else"
    return GateResult(
        gate="two_people",
        passed=bool(others),
        message=f"promoted by {evidence.promoter}, {found}; one other person must approve",
        numbers={"num_approvals": float(len(others))},
    )
