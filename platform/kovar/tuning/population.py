"""Population-based training: which trial goes on from another one's weights, decided purely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kovar.tuning.state import SweepState, TrialState


@dataclass(frozen=True, slots=True)
class Exploit:
    """A trial goes on from a copy of another one's checkpoint.

    Args:
        donor: the other trial.
        step: of the donor's checkpoint.
        draw: seed of the change to the donor's point.
    """

    donor: int
    step: int
    draw: int


def exploit(
    state: SweepState,
    trial: TrialState,
    *,
    metric: str,
    mode: str,
    every: int,
    quantile: float,
    seed: int,
) -> Exploit | None:
    """Decide what a trial does after its newest evaluation.

    Trials are compared by their newest scores, as in Jaderberg and others 2017, section 4.1.1
    (https://arxiv.org/abs/1711.09846): the poorest quantile is replaced by the best.

    Args:
        state: of the sweep.
        trial: one that has just been evaluated.
        metric: that ranks the trials.
        mode: max or min.
        every: evaluations between two decisions about a trial.
        quantile: share of the population that is replaced, and that replaces it.
        seed: of the sweep.

    Returns:
        None where the trial goes on by itself.
    """
    if not trial.history or len(trial.history) % every:
        return None
    scored = sorted(
        (
            (score if mode == "max" else -score, -other.number)
            for other in state.trials.values()
            if other.history
            and other.status in (None, "finished")
            and (score := other.history[-1].metrics.get(metric)) is not None
        ),
        reverse=True,
    )
    size = min(math.ceil(len(scored) * quantile), len(scored) // 2)
    ranked = [-number for _, number in scored]
    if not size or trial.number not in ranked[-size:]:
        return None
    # A trial that has ended keeps no checkpoint.
    donors = [n for n in ranked[:size] if state.trials[n].status is None]
    if not donors:
        return None
    draw = _draw(seed, trial.number, len(trial.history))
    donor = state.trials[donors[draw % len(donors)]]
    return Exploit(donor.number, donor.history[-1].step, draw)


def _draw(*parts: int) -> int:
    """Return a number that depends on nothing else, so that a replay decides the same."""
    digest = sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big")
