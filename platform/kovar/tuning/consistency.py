"""What must agree between the fields of a sweep, told at the line of the one to change."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kovar.config import Document
from kovar.errors import did_you_mean
from kovar.tuning.dimension import Choice, Dimension, Grid, Range, same
from kovar.tuning.scheduler import CHANGEABLE
from kovar.tuning.search.scale import all_values, num_values
from kovar.tuning.search.space import Space
from kovar.tuning.spec import MAX_TRIALS, SweepSpec

DECIDED = {"training.metric": "metric", "training.keep_best": "select"}
"""Fields of a trial that the sweep itself decides, and its own field that does."""


def check_consistency(document: Document, spec: SweepSpec) -> None:
    """Refuse settings that contradict each other.

    Raises:
        SpecError: at the line of the field.
    """
    for path in spec.search:
        if inner := next((one for one in DECIDED if one.startswith(f"{path}.")), None):
            raise document.error_at(
                ("search", path),
                f"this replaces the whole block, and the sweep decides {inner} in it",
                hint=f"vary the fields that differ, one by one: {path}.…",
            )
    for section in ("search", "overrides"):
        for path in set(document.data.get(section, {})) & set(DECIDED):
            raise document.error_at(
                (section, path),
                "the sweep decides this for all trials alike",
                hint=f"use the sweep's own {DECIDED[path]}",
            )
    _check_conditions(document, spec)
    _check_searcher(document, spec)
    _check_scheduler(document, spec)
    _check_number(document, spec)


def _check_conditions(document: Document, spec: SweepSpec) -> None:
    for path, dimension in spec.search.items():
        for other, wanted in dimension.when.items():
            at = ("search", path, "when", other)
            known = spec.search.get(other)
            if not isinstance(known, Grid | Choice) or other == path:
                listed = [p for p, d in spec.search.items() if isinstance(d, Grid | Choice)]
                listed = [name for name in listed if name != path]
                raise document.error_at(
                    at,
                    "a condition is on another dimension whose values are listed",
                    got=other,
                    allowed=", ".join(listed) or "there is none",
                    hint=did_you_mean(other, listed),
                )
            if isinstance(dimension, Grid) and not isinstance(known, Grid):
                raise document.error_at(
                    at,
                    "a grid is tried in full, so it may depend on other grids alone",
                    got=f"{other} is a {known.kind}",
                    hint="make this dimension a choice, or that one a grid",
                )
            if wanted == []:
                raise document.error_at(
                    at,
                    "no value is listed, so this dimension would never vary",
                    allowed=", ".join(map(str, known.values)),
                )
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if not any(same(value, one) for one in known.values):
                    raise document.error_at(
                        at,
                        f"{other} never has this value",
                        got=repr(value),
                        allowed=", ".join(map(str, known.values)),
                    )
        if cycle := _cycle(spec.search, path):
            raise document.error_at(
                ("search", path, "when"),
                "conditions go round in a circle: none of these ever varies",
                got=" → ".join(cycle),
            )


def _cycle(search: dict[str, Dimension], start: str) -> list[str] | None:
    """Find a way along conditions that leads back to its start."""

    def ways(path: list[str]) -> Iterator[list[str]]:
        for other in search[path[-1]].when:
            if other == start:
                yield [*path, start]
            elif other in search and other not in path:
                yield from ways([*path, other])

    return next(ways([start]), None)


def _check_searcher(document: Document, spec: SweepSpec) -> None:
    kind = spec.searcher.kind
    if kind == "grid":
        for path, dimension in spec.search.items():
            if num_values(dimension) is None:
                raise document.error_at(
                    ("search", path),
                    "a grid search goes through all values, and this range has no end of them",
                    got=f"kind: {dimension.kind} without a step",
                    hint="give a step or kind: grid with values, or use searcher: quasi_random",
                )
    is_drawn = kind != "grid" and bool(Space(spec.search).drawn)
    if spec.num_samples > 1 and not is_drawn:
        raise document.error_at(
            "num_samples",
            "nothing is drawn here, so more samples would repeat the same trials",
            got=spec.num_samples,
            allowed="1",
            hint="seeds: 3 tries each configuration with three seeds",
        )
    if kind == "tpe" and spec.num_samples == 1:
        raise document.error_at(
            "num_samples",
            "tpe learns from one draw to the next, and there is one alone",
            got=1,
            hint="num_samples: 30, say; or use searcher: random, which needs no more",
        )
    for path, dimension in spec.search.items():
        if kind == "tpe" and path.startswith("resources") and isinstance(dimension, Range):
            raise document.error_at(
                ("search", path),
                "the plan looks at all hardware beforehand, and tpe may draw any of this range",
                got=f"kind: {dimension.kind}",
                allowed="kind: choice or grid",
            )
    if spec.warm_start is not None and not spec.is_adaptive:
        raise document.error_at(
            "warm_start",
            f"this is for a searcher that learns, and {kind} does not",
            got=spec.warm_start,
            hint="use searcher: tpe",
        )


def _check_scheduler(document: Document, spec: SweepSpec) -> None:
    if spec.seeds > 1 and "training.seed" in spec.search:
        raise document.error_at(
            "seeds",
            "seeds counts training.seed up, and search changes it as well",
            got=spec.seeds,
            hint="leave one of the two out",
        )
    if spec.scheduler.kind != "pbt":
        return
    if spec.seeds > 1:
        raise document.error_at(
            "seeds",
            "trials of pbt take over each other's weights, so a configuration has no seeds",
            got=spec.seeds,
            allowed="1",
        )
    if hardware := next((p for p in spec.search if p.partition(".")[0] == "resources"), None):
        raise document.error_at(
            ("search", hardware),
            "a trial of pbt takes over all values of another one, and cannot change its hardware",
            hint="sweep over each hardware by itself, or use another scheduler",
        )
    if not any(p in CHANGEABLE and not isinstance(d, Grid) for p, d in spec.search.items()):
        raise document.error_at(
            "scheduler",
            "pbt changes fields while a trial trains, and search draws none that may change",
            allowed=", ".join(sorted(CHANGEABLE)),
            hint="draw one of these: kind: loguniform, uniform or choice",
        )
    if spec.num_samples == 1 and spec.searcher.kind != "grid":
        raise document.error_at(
            "num_samples",
            "a trial of pbt takes over the weights of others with the same values of the grids, "
            "and there is one alone",
            got=1,
            hint="num_samples: 8, say",
        )


def _check_number(document: Document, spec: SweepSpec) -> None:
    space = Space(spec.search)
    if spec.searcher.kind == "grid":
        number = math.prod(num_values(d) or 0 for d in spec.search.values())
        at = "search"
    else:
        number = math.prod(len(d.values) for d in spec.search.values() if isinstance(d, Grid))
        at = "search" if number > MAX_TRIALS else "num_samples"
    if number <= MAX_TRIALS:
        number = num_trials(spec, space)
    if number > MAX_TRIALS:
        raise document.error_at(
            at, "too many trials", got=f"{number:,}", allowed=f"at most {MAX_TRIALS:,}"
        )


def num_trials(spec: SweepSpec, space: Space) -> int:
    """Return the most trials that a sweep has."""
    if spec.searcher.kind == "grid":
        values = {path: all_values(d) or [] for path, d in space.dimensions.items()}
        return len(space.crossed(values)) * spec.seeds
    return space.num_configurations(spec.num_samples) * spec.seeds
