"""The searcher that a sweep names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kovar.tuning.search.draws import Combinations, Draws, QuasiRandomDraws
from kovar.tuning.search.search import Observation, Search
from kovar.tuning.search.space import Space
from kovar.tuning.search.tpe import TpeSearch
from kovar.tuning.searcher import GridSearch, QuasiRandomSearch, RandomSearch, Tpe
from kovar.tuning.spec import SweepSpec


def make_search(
    spec: SweepSpec,
    *,
    directions: Mapping[str, str],
    observations: Sequence[Observation] = (),
) -> Search:
    """Make the searcher of a sweep.

    Args:
        spec: the sweep.
        directions: score → whether more (`max`) or less (`min`) of it is better, in the order of
            the objectives.
        observations: of an earlier sweep; for searchers that learn.
    """
    space = Space(spec.search)
    match spec.searcher:
        case GridSearch():
            return Combinations(space)
        case RandomSearch():
            return Draws(space, num_samples=spec.num_samples, seed=spec.seed)
        case QuasiRandomSearch():
            return QuasiRandomDraws(space, num_samples=spec.num_samples, seed=spec.seed)
        case Tpe() as settings:
            return TpeSearch(
                space,
                settings,
                objectives=directions,
                num_samples=spec.num_samples,
                seed=spec.seed,
                observations=observations,
            )
