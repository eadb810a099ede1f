"""The tree-structured Parzen estimator, as Optuna computes it, without Optuna's own state.

Optuna holds the observations in memory. Its sampler is made anew for each proposal with a seed of
its own, so that a proposal follows from the observations and its number alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kovar.tuning.dimension import Choice, Dimension, Grid
from kovar.tuning.search.draws import generator_of, one_of
from kovar.tuning.search.scale import unit_of
from kovar.tuning.search.search import Observation, Point, Search
from kovar.tuning.search.space import Space, key_of
from kovar.tuning.search.turns import Turn, Turns
from kovar.tuning.searcher import Tpe

if TYPE_CHECKING:
    import optuna

MAX_ATTEMPTS: Final = 20
"""Proposals for a configuration that was not tried, until one is chosen among those left."""


@dataclass
class _Asked:
    """A configuration that was proposed and has not ended.

    Args:
        point: its values.
        trial: Optuna's.
        step: of the newest evaluation.
    """

    point: Point
    trial: Any
    step: int = -1


class TpeSearch(Search):
    """Proposes where earlier configurations did well.

    Args:
        space: what varies. The grids are gone through and not learned about: what is drawn beside
            them is proposed from the results of all their combinations.
        settings: of the estimator.
        objectives: score → whether more or less of it is better; several have no single best.
        num_samples: proposals for each combination of the grids.
        seed: of all draws.
        observations: of an earlier sweep.
    """

    def __init__(
        self,
        space: Space,
        settings: Tpe,
        *,
        objectives: Mapping[str, str],
        num_samples: int,
        seed: int,
        observations: Sequence[Observation] = (),
    ) -> None:
        self._space, self._settings, self._objectives = space, settings, dict(objectives)
        self._seed = seed
        self._turns = Turns(space, num_samples)
        self._trials: dict[int, _Asked] = {}
        self._proven: set[bytes] = set()
        self._doubtful: dict[bytes, list[Point]] = {}
        self._study = _study(list(objectives.values()))
        for observation in observations:
            self._learn(observation)

    def ask(self, number: int) -> Point | None:
        """Propose a point that was not tried before."""
        proposed = (self._proposed(turn) for turn in self._turns.left())
        point = next((one for one in proposed if one is not None), None)
        if point is not None:
            self.recall(number, point)
        return point

    def recall(self, number: int, point: Point) -> None:
        """Enter a proposal, as `ask` does with its own: what is learned from is the point alone."""
        self._turns.take(point)
        self._trials[number] = _Asked(point, self._entered(point))

    def report(self, number: int, step: int, scores: Mapping[str, float]) -> None:
        """Remember the newest evaluation, by which trials that are ended early are compared."""
        asked = self._trials.get(number)
        if asked is None or len(self._objectives) > 1 or step <= asked.step:
            return
        (name,) = self._objectives
        if math.isfinite(scores.get(name, math.nan)):
            asked.step = step
            asked.trial.report(scores[name], step)

    def tell(
        self, number: int, scores: Mapping[str, float] | None, *, stopped: bool = False
    ) -> None:
        """Learn from the end of a configuration; what is told of one again changes nothing."""
        asked = self._trials.pop(number, None)
        if asked is None:
            return
        values = [(scores or {}).get(name, math.nan) for name in self._objectives]
        is_whole = all(map(math.isfinite, values))
        grids = self._space.gridded(asked.point)
        if is_whole and not (stopped and len(values) == 1):
            self._study.tell(asked.trial, values)
        elif is_whole or not grids or key_of(grids) in self._proven:
            # Optuna ranks pruned trials below all complete ones, and those without a report last.
            self._study.tell(asked.trial, state=_state("PRUNED"))
        else:
            # The grid may be at fault, such as a precision that the chip lacks, and not what was
            # drawn beside it: put aside until a trial with the same grid values has scores.
            self._study.tell(asked.trial, state=_state("FAIL"))
            self._doubtful.setdefault(key_of(grids), []).append(asked.point)
        if is_whole:
            self._proven.add(key_of(grids))
            for point in self._doubtful.pop(key_of(grids), []):
                self._study.tell(self._entered(point), state=_state("PRUNED"))

    def _proposed(self, turn: Turn) -> Point | None:
        """Propose beside a combination of the grids; None where all of its points were tried."""
        for attempt in range(MAX_ATTEMPTS):
            point = self._proposal(turn.combination, turn.place + 1, attempt)
            if not self._turns.has(point):
                return point
        return one_of(self._turns.untried(turn), self._seed, turn.place)

    def _proposal(self, combination: Point, place: int, attempt: int) -> Point:
        seed = generator_of(self._seed, place, attempt).getrandbits(32)
        self._study.sampler = _sampler(self._settings, seed)
        trial = self._study.ask()
        units: dict[str, float] = {}
        # A dimension is suggested once what it depends on is: Optuna sees no idle values.
        left = list(self._space.drawn)
        while ready := [path for path in left if self._varies(path, combination, units)]:
            for path in ready:
                units[path] = self._suggested(trial, path)
                left.remove(path)
        self._study.tell(trial, state=_state("FAIL"))
        return self._space.point_at(combination, units)

    def _varies(self, path: str, combination: Point, units: Mapping[str, float]) -> bool:
        return self._space.varies(path, self._space.point_at(combination, units))

    def _suggested(self, trial: Any, path: str) -> float:
        """Let Optuna choose a place in the unit interval."""
        match self._space.drawn[path]:
            case Choice(values=values):
                index = trial.suggest_categorical(path, range(len(values)))
                return (int(index) + 0.5) / len(values)
            case _:
                return float(trial.suggest_float(path, 0.0, 1.0))

    def _entered(self, point: Point) -> Any:
        """Begin a trial at a point; the grids are no part of it."""
        import optuna

        places = self._places(point)
        self._study.sampler = optuna.samplers.RandomSampler(seed=0)
        self._study.enqueue_trial(places)
        trial = self._study.ask()
        for path in places:
            self._suggested(trial, path)
        return trial

    def _places(self, point: Point) -> dict[str, float | int]:
        """Return Optuna's parameters of a point: places in the unit interval, or indices."""
        places: dict[str, float | int] = {}
        for path, dimension in self._space.drawn.items():
            unit = unit_of(dimension, point[path]) if path in point else None
            if unit is not None:
                places[path] = _parameter(dimension, unit)
        return places

    def _learn(self, observation: Observation) -> None:
        """Take a trial of an earlier sweep that this one could have."""
        point = observation.point
        if not self._space.has(point):
            return
        values = [observation.scores.get(name, math.nan) for name in self._objectives]
        if all(map(math.isfinite, values)):
            self._study.tell(self._entered(point), values)


def _parameter(dimension: Dimension, unit: float) -> float | int:
    return int(unit * len(dimension.values)) if isinstance(dimension, Grid | Choice) else unit


def _study(directions: list[str]) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = {"max": "maximize", "min": "minimize"}
    return optuna.create_study(directions=[names[one] for one in directions])


def _sampler(settings: Tpe, seed: int) -> Any:
    import optuna

    with warnings.catch_warnings():
        # Optuna calls `group` an experiment: it draws dimensions together that vary together.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            n_startup_trials=settings.num_startup,
            n_ei_candidates=settings.num_candidates,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )


def _state(name: str) -> Any:
    import optuna

    return optuna.trial.TrialState[name]
