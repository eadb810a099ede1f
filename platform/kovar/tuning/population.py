"""Population-based training: which trial goes on from another one's weights, decided purely."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kovar.tuning.scheduler import Pbt


@dataclass(frozen=True, slots=True)
class Exploit:
    """A trial goes on from a copy of another one's checkpoint.

    Args:
        donor: the other trial.
        draw: seed of the change to the donor's point.
    """

    donor: int
    draw: int


def exploit(
    scores: Mapping[int, float],
    *,
    number: int,
    num_evaluations: int,
    donors: Container[int],
    settings: Pbt,
    seed: int,
) -> Exploit | None:
    """Decide what a trial does after its newest evaluation.

    Trials are compared by their newest scores, as in Jaderberg and others 2017, section 4.1.1
    (https://arxiv.org/abs/1711.09846): the poorest quantile is replaced by the best.

    Args:
        scores: newest score of every trial of the population, this one included; larger is better.
        number: of the trial.
        num_evaluations: that it has had.
        donors: trials that can be copied: those that still have a checkpoint.
        settings: of the spec.
        seed: of the sweep.

    Returns:
        None where the trial goes on by itself.
    """
    if num_evaluations % settings.every:
        return None
    ranked = sorted(scores, key=lambda one: (-scores[one], one))
    size = min(math.ceil(len(ranked) * settings.quantile), len(ranked) // 2)
    if not size or number not in ranked[-size:]:
        return None
    able = [one for one in ranked[:size] if one in donors]
    if not able:
        return None
    draw = _draw(seed, number, num_evaluations)
    return Exploit(able[draw % len(able)], draw)


def _draw(*parts: int) -> int:
    """Return a number that depends on nothing else, so that a replay decides the same."""
    digest = sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big")
