"""Which configuration to take, by a rule that can be defended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from kovar.tuning.report.configuration import Configuration, Spread
from kovar.tuning.report.facts import SweepFacts
from kovar.tuning.report.price import Price
from kovar.tuning.report.significance import Rival

RULE: Final = (
    "the {cheapest} configuration whose quality is not significantly worse than the best "
    "(paired bootstrap, 95 %)"
)
WITHOUT_ANSWERS: Final = "the best configuration, since answers to compare row by row are missing"
WITHOUT_PRICE: Final = "the best configuration, since neither cost nor time is known of all"


@dataclass(frozen=True)
class Recommendation:
    """A configuration, and why.

    Args:
        configuration: its number.
        trial: its best trial.
        rule: that chose it.
        reason: what the rule saw, in words.
        price: what the rule went by; None if by quality alone.
    """

    configuration: int
    trial: int
    rule: str
    reason: str
    price: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def recommend(
    ranked: Sequence[Configuration],
    rivals: Sequence[Rival],
    *,
    facts: SweepFacts,
    price: Price | None,
) -> Recommendation | None:
    """Choose a configuration; pure.

    Args:
        ranked: those with a result, the best first.
        rivals: how the others compare with the best, for those that can be compared.
        facts: of the sweep.
        price: that decides between equals; None where none is known of all.

    Returns:
        The choice; None where there is nothing to choose from.
    """
    if not ranked:
        return None
    best, compared = ranked[0], {rival.configuration: rival for rival in rivals}
    others = ranked[1:]
    if price is None:
        return _chosen(best, facts, rule=WITHOUT_PRICE, reason=_score(best, facts), price=None)
    if others and not compared:
        return _chosen(best, facts, rule=WITHOUT_ANSWERS, reason=_score(best, facts), price=None)
    rule = RULE.format(cheapest=price.cheapest)
    equals = [c for c in others if c.number in compared and not compared[c.number].is_worse]
    # A configuration that lost a seed is no safe choice, however cheap.
    candidates = [best, *(c for c in equals if c.is_complete)]
    chosen = min(candidates, key=lambda c: (_mean(price.of(c)), ranked.index(c)))
    reason = _reason(chosen, best, candidates, compared, facts=facts, price=price)
    unknown = len(others) - len(compared)
    if unknown:
        reason += f"; {unknown} were not compared row by row"
    return _chosen(chosen, facts, rule=rule, reason=reason, price=price.name)


def _chosen(
    configuration: Configuration, facts: SweepFacts, *, rule: str, reason: str, price: str | None
) -> Recommendation:
    top = max(configuration.finished, key=lambda t: facts.sign * t.metrics[facts.metric])
    return Recommendation(configuration.number, top.number, rule, reason, price)


def _reason(
    chosen: Configuration,
    best: Configuration,
    candidates: Sequence[Configuration],
    compared: Mapping[int, Rival],
    *,
    facts: SweepFacts,
    price: Price,
) -> str:
    if chosen is best:
        if len(candidates) == 1:
            worse = "every other one that was compared is significantly worse"
            return f"{_score(best, facts)}; {worse}" if compared else _score(best, facts)
        return f"{_score(best, facts)}, and the {price.cheapest} of {len(candidates)} as good"
    rival = compared[chosen.number]
    share = _mean(price.of(chosen)) / _mean(price.of(best))
    gap = f"{rival.gap:.4f} (90 % interval {rival.lower:+.4f} to {rival.upper:+.4f})"
    return (
        f"{_score(chosen, facts)} against {_shown(best, facts)} of the best, configuration "
        f"{best.number}: the gap of {gap} is not significant, and it takes {share:.0%} of the best "
        f"one's {price.name}, the least of {len(candidates)} that are as good"
    )


def _score(configuration: Configuration, facts: SweepFacts) -> str:
    return f"{facts.metric} {_shown(configuration, facts)}"


def _shown(configuration: Configuration, facts: SweepFacts) -> str:
    spread = configuration.metric(facts.metric)
    return "unknown" if spread is None else spread.shown()


def _mean(spread: Spread | None) -> float:
    return float("inf") if spread is None else spread.mean
