"""From a sweep to its trials: every point is known and validated before the first one starts."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from kovar.config import Document, dotted, first_mistake, load_document
from kovar.errors import UserError
from kovar.training import FineTuneSpec
from kovar.training.tasks import TASKS
from kovar.tuning.spec import Choice, Dimension, Grid, Integer, LogUniform, SweepSpec, Uniform

Point = dict[str, JsonValue]


@dataclass(frozen=True)
class TrialSpec:
    """One trial: what it changes, and the whole fine-tuning spec that results."""

    number: int
    point: Point
    spec: FineTuneSpec

    @property
    def name(self) -> str:
        """Folder of the trial below the sweep's."""
        return f"trial-{self.number:04d}"


@dataclass(frozen=True)
class Sweep:
    """A sweep whose trials are all valid."""

    spec: SweepSpec
    trials: tuple[TrialSpec, ...]
    base_dir: Path
    """Folder that relative paths of the base spec start from."""
    document: Document
    base_document: Document

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
    """Read a sweep and its base, and validate every trial.

    Raises:
        SpecError: at the line of the field of the sweep, or of the base, that is at fault.
    """
    document = load_document(path)
    sweep = document.parse(SweepSpec)
    base_path = path.parent / sweep.base
    if not base_path.exists():
        raise document.error_at("base", "no such file", got=str(base_path))
    base_document = load_document(base_path)
    base_document.parse(FineTuneSpec)
    fields = base_document.data
    for key, value in sweep.overrides.items():
        fields = with_values(fields, {key: value})
        _validate(document, "overrides", fields, {key: value})
    trials = tuple(
        TrialSpec(number, point, _validate(document, "search", with_values(fields, point), point))
        for number, point in enumerate(draw_points(sweep), start=1)
    )
    if any(trial.spec.resources.num_workers.max > 1 for trial in trials):
        raise document.error_at(
            ("base",),
            "a trial runs on one worker, and the base asks for more",
            got=sweep.base,
            hint='add "resources.num_workers: 1" to the overrides',
        )
    for task in sorted({trial.spec.task for trial in trials}):
        if sweep.metric not in TASKS[task].metrics:
            raise document.error_at(
                ("base",),
                f"a sweep ranks its trials by {sweep.metric}, which {task} does not have",
                got=task,
                allowed=", ".join(n for n, t in TASKS.items() if sweep.metric in t.metrics),
            )
    return Sweep(sweep, trials, base_path.parent, document, base_document)


def draw_points(sweep: SweepSpec) -> list[Point]:
    """List the points of a sweep: the grid times `num_samples` draws; pure, seeded."""
    grids = {path: d.values for path, d in sweep.search.items() if isinstance(d, Grid)}
    drawn = {path: d for path, d in sweep.search.items() if not isinstance(d, Grid)}
    generator = random.Random(sweep.seed)  # noqa: S311 (a sweep is no secret)
    points: list[Point] = []
    for _ in range(sweep.num_samples):
        sample = {path: _draw(dimension, generator) for path, dimension in drawn.items()}
        for combination in itertools.product(*grids.values()):
            chosen = {**dict(zip(grids, combination, strict=True)), **sample}
            points.append({path: chosen[path] for path in sweep.search})
    return points


def _draw(dimension: Dimension, generator: random.Random) -> JsonValue:
    match dimension:
        case Grid() | Choice():
            return generator.choice(dimension.values)
        case Uniform():
            return generator.uniform(dimension.low, dimension.high)
        case LogUniform():
            return math.exp(generator.uniform(math.log(dimension.low), math.log(dimension.high)))
        case Integer():
            return generator.randint(dimension.low, dimension.high)


def with_values(fields: dict[str, Any], values: Point) -> dict[str, Any]:
    """Return a copy of nested `fields` with the values at the dotted paths replaced."""
    changed = dict(fields)
    for path, value in values.items():
        *parents, last = path.split(".")
        here = changed
        for parent in parents:
            nested = here.get(parent)
            here[parent] = dict(nested) if isinstance(nested, dict) else {}
            here = here[parent]
        here[last] = value
    return changed


def _validate(
    document: Document, section: str, fields: dict[str, Any], values: Point
) -> FineTuneSpec:
    """Validate a changed base; a mistake is reported at the line of the sweep that makes it."""
    try:
        return FineTuneSpec.model_validate_json(json.dumps(fields))
    except ValidationError as problem:
        mistake = first_mistake(FineTuneSpec, fields, problem)
    at_fault = dotted(mistake.path)
    key = next((key for key in values if f"{at_fault}.".startswith(f"{key}.")), next(iter(values)))
    raise document.error_at(
        (section, key),
        f"{at_fault}: {mistake.message}",
        got=values[key],
        allowed=mistake.allowed,
        hint=mistake.hint,
    )
