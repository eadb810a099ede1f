"""TensorBoard: HParams of the sweep, and every trial's scalars, as event files.

The HParams plugin reads three summaries: the experiment (which fields, which metrics), and for each
trial the start (its values) and the end (its status) of a session. They are written through
TensorBoard's own protocol messages.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from kovar.tuning.record import TrialRecord
from kovar.tuning.report.dimension import shown
from kovar.tuning.report.event_file import (
    Scalar,
    append_events,
    scalar_events,
    summary_event,
)
from kovar.tuning.report.facts import short_names
from kovar.tuning.report.sweep_report import SweepReport

_OUTCOMES: Final = ("train_seconds", "wall_seconds", "tokens_per_second", "peak_memory_bytes",
                    "energy_joules", "cost")  # fmt: skip


def write_board(report: SweepReport, folder: Path) -> None:
    """Write event files; what lay in the folder before is replaced.

    Args:
        report: the sweep.
        folder: for `tensorboard --logdir`: the experiment lies in it, trials in folders below.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = [trial for trial in report.trials if trial.history or trial.metrics or trial.stays]
    created = min((stay.started_at for t in started for stay in t.stays), default=0.0)
    name = f"events.out.tfevents.{time.time():010.0f}.kovar"
    experiment = summary_event(_experiment(report, started, created), at=created)
    append_events(folder / name, [experiment], at=created)
    for trial in started:
        at = trial.stays[0].started_at if trial.stays else created
        session = (summary_event(one, at=at) for one in _session(trial, report, at))
        events = chain(session, scalar_events(_scalars(trial, at)))
        append_events(folder / f"trial-{trial.number:04d}" / name, events, at=at)


def session_start(values: dict[str, Any], *, configuration: int, at: float) -> Any:
    """Return the summary that begins a trial's session.

    Args:
        values: field → value.
        configuration: its number; seeds of one form a group, whose metrics TensorBoard averages.
        at: UNIX time.
    """
    from tensorboard.plugins.hparams import summary_v2 as hparams

    plain = {name: _plain(value) for name, value in values.items()}
    return hparams.hparams_pb(plain, trial_id=f"{configuration:04d}", start_time_secs=at)


def _experiment(report: SweepReport, started: Sequence[TrialRecord], created: float) -> Any:
    from tensorboard.plugins.hparams import summary_v2 as hparams

    names = short_names(report.facts.paths)
    values = {path: [trial.point.get(path) for trial in started] for path in report.facts.paths}
    fields = [
        hparams.HParam(path, _domain(values[path]), display_name=names[path])
        for path in report.facts.paths
    ]
    fields += [
        hparams.HParam(name, _domain([_facts(trial)[name] for trial in started]))
        for name in _facts_told(report)
    ]
    known = sorted({tag for trial in started for tag, *_ in _scalars(trial, 0.0)})
    first = f"final/{report.facts.metric}"
    metrics = [
        hparams.Metric(tag, display_name=tag.partition("/")[2])
        for tag in sorted(known, key=lambda tag: (tag != first, tag))
        if not tag.startswith("evaluation/")
    ]
    return hparams.hparams_config_pb(fields, metrics, time_created_secs=created)


def _session(trial: TrialRecord, report: SweepReport, at: float) -> list[Any]:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    values = {path: trial.point.get(path) for path in report.facts.paths}
    values |= {name: _facts(trial)[name] for name in _facts_told(report)}
    started = session_start(values, configuration=trial.configuration, at=at)
    ok = trial.status in ("finished", "stopped")
    ended = plugin_data_pb2.SessionEndInfo(
        status=api_pb2.STATUS_SUCCESS if ok else api_pb2.STATUS_FAILURE,
        end_time_secs=trial.stays[-1].ended_at if trial.stays else at,
    )
    end = type(started)()
    end.value.add(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(
            plugin_data_pb2.HParamsPluginData(session_end_info=ended)
        ),
        tensor=metadata.NULL_TENSOR,
    )
    return [started, end]


def _scalars(trial: TrialRecord, at: float) -> Iterator[Scalar]:
    """Yield the curves of a trial, then what it ended with."""
    for one in trial.history:
        for name, value in one.metrics.items():
            if math.isfinite(value):
                yield f"evaluation/{name}", value, one.step, at + one.seconds
    end = trial.stays[-1].ended_at if trial.stays else at + trial.wall_seconds
    for name, value in trial.metrics.items():
        if math.isfinite(value):
            yield f"final/{name}", value, trial.num_steps, end
    for name in _OUTCOMES:
        known = getattr(trial, name)
        if known is not None:
            yield f"trial/{name}", float(known), trial.num_steps, end


def _facts_told(report: SweepReport) -> list[str]:
    """Return the facts that say more than the searched fields do."""
    names = ["status"]
    if "precision" not in report.facts.paths or any(
        trial.precision not in (None, trial.point.get("precision")) for trial in report.trials
    ):
        names.insert(0, "resolved precision")
    if len({_facts(trial)["runs on"] for trial in report.trials}) > 1:
        names.insert(0, "runs on")
    return names


def _facts(trial: TrialRecord) -> dict[str, str]:
    last = trial.stays[-1] if trial.stays else None
    return {
        "resolved precision": trial.precision or "–",
        "runs on": (last.node_type or last.chip) if last else "–",
        "status": trial.status,
    }


def _plain(value: Any) -> bool | float | str:
    return value if isinstance(value, bool | int | float | str) else shown(value)


def _domain(values: Sequence[Any]) -> Any:
    """Return the values of a field as TensorBoard filters by them: numbers as an interval."""
    from tensorboard.plugins.hparams import summary_v2 as hparams

    plain = [_plain(value) for value in values]
    numbers = [one for one in plain if isinstance(one, int | float) and not isinstance(one, bool)]
    if numbers and len(numbers) == len(plain) and len(set(numbers)) > 12:
        return hparams.RealInterval(float(min(numbers)), float(max(numbers)))
    if len({type(one) for one in plain}) != 1:
        return None
    return hparams.Discrete(sorted(set(plain)))
