"""Hands the conductor's trials to Ray Tune; this module imports Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import SearchAlgorithm

from kovar.tuning.scheduling import SweepTrial

if TYPE_CHECKING:
    from kovar.tuning.conductor import Conductor
    from kovar.tuning.points import TrialSpec


@dataclass(frozen=True)
class Work:
    """What Ray Tune needs to know of one trial.

    Args:
        payload: what its actor is given; anything that Ray can send.
        resources: arguments of `ray.tune.PlacementGroupFactory`.
        max_failures: crashes after which it starts again.
    """

    payload: Any
    resources: Mapping[str, Any]
    max_failures: int


@dataclass(frozen=True)
class _Parcel:
    """A payload that Ray Tune passes on without copying it; nobody changes it."""

    value: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> _Parcel:
        return self


class TrialFeed(SearchAlgorithm):  # type: ignore[misc]
    """Hands the conductor's trials to Ray Tune.

    Args:
        conductor: of the sweep.
        work_of: what a trial takes.
    """

    def __init__(self, conductor: Conductor, work_of: Callable[[TrialSpec], Work]) -> None:
        self._conductor, self._work_of = conductor, work_of
        self._options: dict[str, Any] = {}

    def add_configurations(self, experiments: Any) -> None:
        """Take the one experiment, which names the function and the storage."""
        spec = experiments[0].spec
        self._options = {
            "trainable_name": spec["run"],
            "storage": spec["storage"],
            "checkpoint_config": spec["checkpoint_config"],
        }

    def next_trial(self) -> SweepTrial | None:
        """Return a trial that may start now, if there is one."""
        trial = self._conductor.next()
        if trial is None:
            return None
        work = self._work_of(trial)
        return SweepTrial(
            trial.number,
            num_failures=self._conductor.state.trials[trial.number].num_failures,
            config=self.config_of(work),
            placement_group_factory=tune.PlacementGroupFactory(**work.resources),
            max_failures=work.max_failures,
            trial_dirname_creator=str,
            **self._options,
        )

    def renewed(self, trial: SweepTrial) -> dict[str, Any]:
        """Return the configuration of a trial whose fields have changed."""
        return self.config_of(self._work_of(self._conductor.specs[trial.number]))

    @staticmethod
    def config_of(work: Work) -> dict[str, Any]:
        """Return what an actor is given."""
        return {"payload": _Parcel(work.payload)}

    def is_finished(self) -> bool:
        """Say whether no trial will follow."""
        return self._finished or self._conductor.is_exhausted
