"""Ray Tune's schedulers over a ledger: what was decided once is decided the same after a restart.

Times are counted in evaluations. A scheduler is made anew by each driver and hears again, in their
order, of the evaluations that the ledger holds. This module imports Ray.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from kovar.tuning.population import Exploit, exploit
from kovar.tuning.scheduler import Asha, HyperBand, MedianStopping, Pbt
from kovar.tuning.state import SweepState, TrialState

if TYPE_CHECKING:
    from kovar.tuning.ledger import Entry
    from kovar.tuning.points import Point
    from kovar.tuning.scheduler import SchedulerSettings

TIME: Final = "evaluation"
SCORE: Final = "score"
_LONGEST: Final = 10_000
"""More evaluations than a trial has: at the end of its training a trial ends by itself."""


def ray_scheduler(settings: SchedulerSettings, mode: str) -> TrialScheduler:
    """Return Ray Tune's scheduler for a sweep's settings.

    Args:
        settings: of the spec.
        mode: max or min.
    """
    common = {"time_attr": TIME, "metric": SCORE, "mode": mode}
    match settings:
        case Asha():
            return AsyncHyperBandScheduler(
                **common,
                max_t=max(_LONGEST, settings.grace),
                grace_period=settings.grace,
                reduction_factor=settings.reduction_factor,
                brackets=settings.brackets,
                stop_last_trials=False,
            )
        case HyperBand():
            factor = settings.reduction_factor
            return AsyncHyperBandScheduler(
                **common,
                max_t=settings.max_evaluations,
                grace_period=1,
                reduction_factor=factor,
                brackets=1 + int(math.log(settings.max_evaluations) / math.log(factor)),
                stop_last_trials=False,
            )
        case MedianStopping():
            return MedianStoppingRule(
                **common,
                grace_period=settings.grace,
                min_samples_required=settings.min_trials,
                min_time_slice=math.inf,  # no trial is paused to let others catch up
            )
    return FIFOScheduler()


class SweepTrial(Trial):  # type: ignore[misc]
    """A trial of Ray Tune with an identity of its own: the number in the sweep.

    Args:
        number: in the sweep.
        num_failures: crashes under earlier drivers, which count against `max_failures`, too.
        options: of Ray Tune's trial.
    """

    def __init__(self, number: int, *, num_failures: int = 0, **options: Any) -> None:
        self.number = number
        super().__init__(trial_id=f"{number:08d}", **options)
        self.run_metadata.num_failures = num_failures
        self.problem: BaseException | None = None
        self.is_lost_node = False
        self.node_id: str | None = None

    def __hash__(self) -> int:
        return hash(self.trial_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trial) and other.trial_id == self.trial_id

    def __str__(self) -> str:
        return f"trial-{self.number:04d}"

    def get_json_state(self) -> tuple[str, str]:
        """Leave Ray Tune nothing to write: the ledger has it."""
        return "{}", "{}"

    def handle_error(self, exc: BaseException | None = None) -> None:
        """Remember what went wrong; a lost node is not the trial's failure."""
        from kovar.tuning.failure import is_lost_node

        self.problem, self.is_lost_node = exc, is_lost_node(exc, self.node_id)
        self.node_id = None
        self.run_metadata.num_failures += not self.is_lost_node
        self.run_metadata.invalidate_cache()


class SweepScheduler(TrialScheduler):  # type: ignore[misc]
    """Passes what a sweep's trials tell to one of Ray's schedulers.

    Args:
        settings: of the spec.
        state: of the sweep.
        metric: that ranks the trials.
        mode: max or min.
        seed: of the sweep.
        cell: what the points have in common whose trials may take over each other's weights.
    """

    def __init__(
        self,
        settings: SchedulerSettings,
        state: SweepState,
        *,
        metric: str,
        mode: str,
        seed: int,
        cell: Callable[[Point], bytes] = lambda point: b"",
    ) -> None:
        super().__init__()
        self._cell = cell
        self._settings, self._state = settings, state
        self._inner = ray_scheduler(settings, mode)
        self._metric_name, self._mode, self._seed = metric, mode, seed
        self._known: set[str] = set()
        self._exploits: dict[int, Exploit] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take nothing from Ray Tune: the sweep's spec says it all."""
        return True

    def replay(self, entries: Iterable[Entry]) -> None:
        """Hear again of all that the ledger holds."""
        past = SweepState()
        for entry in entries:
            is_news = past.apply(entry)
            if "trial" not in entry.fields:
                continue
            trial = past.trials[entry.fields["trial"]]
            stub = SweepTrial(trial.number, trainable_name="", stub=True)
            match entry.kind:
                case "started":
                    self.on_trial_add(None, stub)
                case "reported" if is_news and self._metric_name in trial.history[-1].metrics:
                    self._inner.on_trial_result(None, stub, self._last(trial))
                case "ended" if stub.trial_id in self._known:
                    self._complete(None, stub, trial)

    def on_trial_add(self, tune_controller: Any, trial: SweepTrial) -> None:
        """Add a trial once; Ray Tune adds it again after a crash."""
        if trial.trial_id not in self._known:
            self._known.add(trial.trial_id)
            with _seeded(self._seed, trial.number):
                self._inner.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: SweepTrial) -> None:
        """Drop a trial that is given up; one that starts again stays where it is."""
        if not trial.should_recover():
            self._drop(tune_controller, trial)

    def on_trial_result(
        self, tune_controller: Any, trial: SweepTrial, result: dict[str, Any]
    ) -> str:
        """Decide on a trial's newest evaluation."""
        known = self._state.trials[trial.number]
        if SCORE not in result or (known.history and result["step"] <= known.history[-1].step):
            return str(TrialScheduler.CONTINUE)
        told = {TIME: len(known.history) + 1, SCORE: result[SCORE]}
        if isinstance(self._settings, Pbt) and self._decide(trial.number, self._settings, told):
            # It starts again with other fields, where the other trial's checkpoint is.
            return str(TrialScheduler.PAUSE)
        return str(self._inner.on_trial_result(tune_controller, trial, told))

    def exploit_of(self, number: int) -> Exploit | None:
        """Return what a trial that was just paused goes on from; asked for once."""
        return self._exploits.pop(number, None)

    def _decide(self, number: int, settings: Pbt, told: dict[str, Any]) -> bool:
        """Decide whether a trial goes on from another one's weights."""
        sign = 1 if self._mode == "max" else -1
        cell = self._cell(self._state.trials[number].point)
        population = [one for one in self._state.trials.values() if self._cell(one.point) == cell]
        scores = {
            other.number: sign * other.history[-1].metrics[self._metric_name]
            for other in population
            if other.status in (None, "finished")
            and other.history
            and self._metric_name in other.history[-1].metrics
        }
        scores[number] = sign * told[SCORE]
        found = exploit(
            scores,
            number=number,
            num_evaluations=told[TIME],
            donors={one.number for one in population if one.status is None},
            settings=settings,
            seed=self._seed,
        )
        if found is not None:
            self._exploits[number] = found
        return found is not None

    def on_trial_complete(
        self, tune_controller: Any, trial: SweepTrial, result: dict[str, Any]
    ) -> None:
        """Take a trial's end."""
        self._complete(tune_controller, trial, self._state.trials[trial.number])

    def on_trial_remove(self, tune_controller: Any, trial: SweepTrial) -> None:
        """Drop a trial that never ran, or waits."""
        self._drop(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the trial that has waited longest."""
        return self._inner.choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """Describe Ray's scheduler."""
        return str(self._inner.debug_string())

    def _complete(self, tune_controller: Any, trial: SweepTrial, known: TrialState) -> None:
        if known.history and self._metric_name in known.history[-1].metrics:
            self._inner.on_trial_complete(tune_controller, trial, self._last(known))
            self._known.discard(trial.trial_id)
        else:
            self._drop(tune_controller, trial)

    def _drop(self, tune_controller: Any, trial: SweepTrial) -> None:
        if trial.trial_id in self._known:
            self._known.discard(trial.trial_id)
            self._inner.on_trial_remove(tune_controller, trial)

    def _last(self, trial: TrialState) -> dict[str, Any]:
        score = trial.history[-1].metrics[self._metric_name]
        return {TIME: len(trial.history), SCORE: score}


@contextmanager
def _seeded(*seeds: int) -> Iterator[None]:
    """Make what Ray draws from NumPy's global generator depend on the seeds alone."""
    before = np.random.get_state()
    np.random.seed(seeds)
    try:
        yield
    finally:
        np.random.set_state(before)
