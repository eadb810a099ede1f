"""From a sweep's file to its trials: all that can be known is validated before any starts."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Final

from kovar.config import Document, load_document
from kovar.errors import UserError
from kovar.training import FineTuneSpec
from kovar.training.tasks import TASKS, TaskName
from kovar.tuning.consistency import check_consistency, num_trials
from kovar.tuning.earlier import read_observations
from kovar.tuning.fields import validated, with_values
from kovar.tuning.goal import directions_of, with_goal
from kovar.tuning.search import Observation, Point, Search, make_search
from kovar.tuning.search.corners import corners
from kovar.tuning.search.space import Space
from kovar.tuning.spec import SweepSpec

LEARNING_SHARE: Final = 0.25
"""Share of the trials that run at once, at most, where the searcher learns from their results: what
all begin together is drawn blindly."""

__all__ = ["Point", "Sweep", "TrialSpec", "draw_points", "load_sweep"]


@dataclass(frozen=True)
class TrialSpec:
    """One trial: what it changes, and the whole fine-tuning spec that results.

    Args:
        number: counts from 1.
        point: dotted path → value.
        spec: of the trial.
        configuration: counts from 1; trials of one configuration differ in their seed alone.
    """

    number: int
    point: Point
    spec: FineTuneSpec
    configuration: int

    @property
    def name(self) -> str:
        """Folder of the trial below the sweep's."""
        return f"trial-{self.number:04d}"

    @property
    def seed(self) -> int:
        """Seed of its training."""
        return self.spec.training.seed

    @property
    def max_failures(self) -> int:
        """Crashes after which it starts again."""
        return self.spec.max_failures


@dataclass(frozen=True)
class Sweep:
    """A sweep that is valid as far as it is known.

    Args:
        spec: as written, with `metric`, `mode` and `select` decided, and with `max_concurrent`
            where the searcher learns.
        base_dir: folder that relative paths of the base spec start from.
        document: the sweep's file.
        base_document: the base, which may be a part of it.
        base: with the overrides.
        fields: of the base, as written.
        observations: of an earlier sweep.
    """

    spec: SweepSpec
    base_dir: Path
    document: Document
    base_document: Document
    base: FineTuneSpec
    fields: dict[str, Any]
    observations: tuple[Observation, ...] = ()

    @property
    def is_adaptive(self) -> bool:
        """Whether configurations depend on results, so that they are not known beforehand."""
        return self.spec.is_adaptive

    @property
    def num_trials(self) -> int:
        """Most trials that it can have."""
        return num_trials(self.spec, self.space) if self.is_adaptive else len(self.trials)

    @cached_property
    def space(self) -> Space:
        """What varies."""
        return Space(self.spec.search)

    @cached_property
    def trials(self) -> tuple[TrialSpec, ...]:
        """All trials; none where they are not known beforehand."""
        if self.is_adaptive:
            return ()
        points = enumerate(draw_points(self.spec), start=1)
        return tuple(trial for number, point in points for trial in self.trials_of(number, point))

    @cached_property
    def corners(self) -> tuple[TrialSpec, ...]:
        """Examples at the edges of the space; no trials of their own."""
        points = enumerate(corners(self.space), start=1)
        return tuple(self._trial(number, number, point, 0) for number, point in points)

    @property
    def examples(self) -> tuple[TrialSpec, ...]:
        """The trials, or where these are not known the corners."""
        return self.trials or self.corners

    def make_search(self) -> Search:
        """Make the searcher, as it is at the beginning."""
        directions = directions_of(self.spec, self.base.task)
        return make_search(self.spec, directions=directions, observations=self.observations)

    def trials_of(self, configuration: int, point: Point) -> tuple[TrialSpec, ...]:
        """Return the trials of a configuration, one for each seed.

        Raises:
            SpecError: at the line of the dimension, a value that no fine-tuning spec can hold.
        """
        before = (configuration - 1) * self.spec.seeds
        return tuple(
            self._trial(before + repeat + 1, configuration, point, repeat)
            for repeat in range(self.spec.seeds)
        )

    def _trial(self, number: int, configuration: int, point: Point, repeat: int) -> TrialSpec:
        fields = with_values(self.fields, point)
        if repeat:
            fields = with_values(fields, {"training.seed": self.base.training.seed + repeat})
        spec = validated(self.document, "search", fields, point)
        return TrialSpec(number, point, spec, configuration)

    @contextmanager
    def pointing(self) -> Iterator[None]:
        """Point errors about a field of a trial at the sweep's line, or else at the base's."""
        try:
            with self.base_document.pointing():
                yield
        except UserError as error:
            for section in ("search", "overrides"):
                if error.field and error.field in self.document.data.get(section, {}):
                    line = self.document.line((section, error.field))
                    error.context |= {"file": str(self.document.path), "line": line}
            raise


def load_sweep(path: Path) -> Sweep:
    """Read a sweep and its base; validate every trial that is known, and the edges of all ranges.

    Raises:
        SpecError: at the line of the field of the sweep, or of the base, that is at fault.
    """
    document = load_document(path)
    spec = document.parse(SweepSpec)
    check_consistency(document, spec)
    base_document = _base_document(document, spec, path)
    base = base_document.parse(FineTuneSpec)
    fields = base_document.data
    for key, value in spec.overrides.items():
        fields = with_values(fields, {key: value})
        base = validated(document, "overrides", fields, {key: value})
    spec = _with_limit(with_goal(document, spec, base, _tasks(spec, base)))
    best = spec.select == "best"
    fields = with_values(fields, {"training.metric": spec.metric, "training.keep_best": best})
    base = FineTuneSpec.model_validate_json(json.dumps(fields))
    base_dir = (base_document.path or path).parent
    sweep = Sweep(spec, base_dir, document, base_document, base, fields)
    for trial in (*sweep.corners, *sweep.trials):
        _check_trial(sweep, trial)
    if spec.warm_start is None:
        return sweep
    names = directions_of(spec, base.task)
    observations = read_observations(document, path.parent / spec.warm_start, names)
    return replace(sweep, observations=observations)


def draw_points(spec: SweepSpec) -> list[Point]:
    """List the points of a sweep whose searcher does not learn; pure, seeded."""
    search = make_search(spec, directions={})
    points = map(search.ask, count(1))
    return [
        point for point in takewhile(lambda point: point is not None, points) if point is not None
    ]


def _base_document(document: Document, spec: SweepSpec, path: Path) -> Document:
    if isinstance(spec.base, dict):
        return document.part("base")
    if not spec.base:
        raise document.error_at("base", "no file is named", got="''")
    base_path = path.parent / spec.base
    if not base_path.exists():
        raise document.error_at("base", "no such file", got=str(base_path))
    if base_path.is_dir():
        hint = "name the file of a fine-tuning spec in it"
        raise document.error_at("base", "this is a folder", got=str(base_path), hint=hint)
    return load_document(base_path)


def _with_limit(spec: SweepSpec) -> SweepSpec:
    """Let a searcher that learns hear of most trials before it proposes the next ones."""
    if not spec.is_adaptive or spec.limit is not None:
        return spec
    most = math.ceil(num_trials(spec, Space(spec.search)) * LEARNING_SHARE)
    return spec.model_copy(update={"max_concurrent": most})


def _tasks(spec: SweepSpec, base: FineTuneSpec) -> Collection[TaskName]:
    varied = spec.search.get("task")
    listed = getattr(varied, "values", ())
    # The base's own, too: it is validated with the metric before any value is put in.
    return {base.task, *(name for name in TASKS if name in listed)}


def _check_trial(sweep: Sweep, trial: TrialSpec) -> None:
    """Refuse what a fine-tuning spec may say but a trial cannot be."""
    number = trial.spec.resources.num_workers
    if not number.is_fixed:
        at = next((p for p in trial.point if p.startswith("resources.num_workers")), None)
        raise sweep.document.error_at(
            ("search", at) if at else ("base",),
            "the trials of a sweep have a fixed number of workers, so that they compare",
            got=f"{number} workers",
            hint=f'add "resources.num_workers: {number.min}" to the overrides',
        )
