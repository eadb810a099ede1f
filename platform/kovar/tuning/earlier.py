"""What an earlier sweep found, for a searcher to begin with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from kovar.config import Document
from kovar.tuning.search import Observation
from kovar.tuning.search.space import key_of
from kovar.tuning.spec import EXPENSES

RESULTS: Final = "results.json"


def read_observations(
    document: Document, folder: Path, names: Iterable[str]
) -> tuple[Observation, ...]:
    """Read the finished trials of an earlier sweep, those of one configuration together.

    Args:
        document: the sweep's file, for messages.
        folder: of the earlier sweep.
        names: scores that the searcher learns from.

    Raises:
        SpecError: no results, or none with these scores.
    """
    path = folder / RESULTS
    try:
        trials = json.loads(path.read_text(encoding="utf-8"))["trials"]
        found = _means(trial for trial in trials if trial["status"] == "finished")
    except FileNotFoundError:
        raise document.error_at(
            "warm_start",
            f"the folder has no {RESULTS}",
            got=str(folder),
            hint="name the folder of a sweep that has ended, relative to this file",
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise document.error_at(
            "warm_start", "not the results of a sweep", got=f"{path}: {problem}"
        ) from None
    wanted = set(names)
    usable = tuple(one for one in found if wanted <= one.scores.keys())
    if not usable:
        raise document.error_at(
            "warm_start",
            f"no finished trial there has {' and '.join(sorted(wanted))}",
            got=str(folder),
            allowed=", ".join(sorted({name for one in found for name in one.scores})) or "none",
        )
    return usable


def _means(trials: Iterable[Mapping[str, Any]]) -> list[Observation]:
    groups: dict[bytes, list[Mapping[str, Any]]] = {}
    for trial in trials:
        groups.setdefault(key_of(trial["point"]), []).append(trial)
    found = []
    for group in groups.values():
        scores = [_scores(trial) for trial in group]
        shared = set.intersection(*(set(one) for one in scores))
        means = {name: fmean(one[name] for one in scores) for name in sorted(shared)}
        found.append(Observation(group[0]["point"], means))
    return found


def _scores(trial: Mapping[str, Any]) -> dict[str, float]:
    expenses = {name: trial.get(name) for name in EXPENSES}
    scores = {**trial["metrics"], **expenses}
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}
