"""A sweep as one page that needs no network: plots, recommendation, tables with filters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from kovar.config import format_duration, format_size
from kovar.registry.html_page import html_page
from kovar.tuning.record import TrialRecord
from kovar.tuning.report.analysis import Analysis
from kovar.tuning.report.configuration import Configuration, Spread
from kovar.tuning.report.dimension import shown
from kovar.tuning.report.facts import short_names
from kovar.tuning.report.plots import Plot, make_plots
from kovar.tuning.report.snippet import snippet
from kovar.tuning.report.sweep_report import SweepReport
from kovar.tuning.report.table import money


def sweep_page(report: SweepReport, analysis: Analysis) -> str:
    """Write the page; equal arguments give equal bytes.

    plotly.js is inside, 4.8 MB of it: the page opens without a network, and in ten years.
    """
    from plotly.offline import get_plotlyjs

    plots = make_plots(report, analysis)
    body = "\n".join(
        part
        for part in (
            _head(report),
            _choice(report, analysis),
            *(_figure(plot) for plot in plots),
            _missing(analysis),
            _section("Configurations", _configurations(report, analysis)),
            _section("Trials", _filters(report) + _trials(report)),
            _section("What happened", _incidents(report)),
            _data(plots),
        )
        if part
    )
    script = f"{get_plotlyjs()}\n{_asset('page.js')}"
    name = report.facts.name
    return html_page(f"Sweep {name}", body, style=_asset("page.css"), script=script)


def _asset(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _head(report: SweepReport) -> str:
    facts, best = report.facts, report.best_configuration
    score = best.metric(facts.metric) if best else None
    stays = [stay for trial in report.trials for stay in trial.stays]
    tiles = {"trials": str(len(report.trials))}
    if score is not None and best is not None:
        tiles[f"best {facts.metric}"] = score.shown()
        tiles["best configuration"] = str(best.number)
    if stays:
        took = max(s.ended_at for s in stays) - min(s.started_at for s in stays)
        tiles["wall time"] = format_duration(took)
        tiles["nodes"] = str(len({stay.node for stay in stays}))
    if report.cost is not None:
        tiles["cost"] = money(report.cost, facts.currency)
    if report.energy_joules is not None:
        tiles["energy"] = f"{report.energy_joules / 3600:,.3g} Wh"
    pills = "".join(
        f'<span class="pill s-{status}">{count} {status}</span>'
        for status, count in report.counts.items()
    )
    shown_tiles = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in tiles.items()
    )
    return f"<h1>{escape(facts.name)} {pills}</h1>\n<dl class=tiles>{shown_tiles}</dl>"


def _choice(report: SweepReport, analysis: Analysis) -> str:
    chosen = analysis.recommendation
    if chosen is None:
        return (
            '<div class="choice none"><p>No trial finished: there is nothing to choose.</p></div>'
        )
    configuration = next(c for c in report.configurations if c.number == chosen.configuration)
    best = report.best
    other = ""
    if best is not None and best.configuration != chosen.configuration:
        other = (
            f" The weights that are kept are those of the best trial, {best.number}: to have the "
            "recommended ones, train with these values."
        )
    return (
        f'<div class="choice"><h2>Take configuration {chosen.configuration}</h2>'
        f"<p>{escape(chosen.reason[0].upper() + chosen.reason[1:])}.</p>"
        f"<pre><code>{escape(snippet(configuration.point))}</code></pre>"
        f"<p class=soft>Rule: {escape(chosen.rule)}.{other}</p></div>"
    )


def _figure(plot: Plot) -> str:
    variants = plot.variants()
    options = "".join(f"<option>{escape(one.name)}</option>" for one in variants)
    label = escape(f"{plot.title}: what is shown")
    choice = f'<select aria-label="{label}">{options}</select>' if len(variants) > 1 else ""
    return (
        f'<section class=plot id="{plot.slug}"><h2>{escape(plot.title)}{choice}</h2>'
        f'<div class=drawn role=img aria-label="{escape(plot.title)}"></div>'
        f"<p class=soft>{escape(plot.caption)}</p></section>"
    )


def _missing(analysis: Analysis) -> str:
    """Say why there is no importance: an absent plot says nothing."""
    found = analysis.importance
    if found.fields or not found.caution:
        return ""
    return _section("Importance of the fields", f"<p>Not shown: {escape(found.caution)}.</p>")


def _configurations(report: SweepReport, analysis: Analysis) -> str:
    facts, names = report.facts, short_names(report.facts.paths)
    fronts = {number for one in analysis.fronts[:1] for number in one.configurations}
    heads = ["configuration", *(names[path] for path in facts.paths), facts.metric, "verdict"]
    heads += ["behind the best (90 % interval)", "seeds", "time", "cost", "tokens/s", "memory"]
    ranked = report.ranked_configurations
    others = [c for c in report.configurations if c not in ranked]
    rows = []
    for one in [*ranked, *others]:
        rival = analysis.rival(one.number)
        gap = f"{rival.gap:.4f} ({rival.lower:+.4f} … {rival.upper:+.4f})" if rival else ""
        rows.append(
            [
                str(one.number),
                *(shown(one.point.get(path)) for path in facts.paths),
                _shown(one.metric(facts.metric)),
                _verdict(one, report, analysis, on_front=one.number in fronts),
                gap,
                f"{len(one.finished)} of {len(one.trials)}",
                format_duration(one.wall_seconds.mean) if one.wall_seconds else "",
                money(one.cost.mean, facts.currency) if one.cost else "",
                f"{one.tokens_per_second.mean:,.0f}" if one.tokens_per_second else "",
                format_size(one.peak_memory_bytes) if one.peak_memory_bytes else "",
            ]
        )
    return _table(heads, rows, name="configurations")


def _verdict(one: Configuration, report: SweepReport, analysis: Analysis, *, on_front: bool) -> str:
    words: list[str] = [] if one.finished else [one.status]
    if one is report.best_configuration:
        words.append("best")
    if analysis.recommendation and analysis.recommendation.configuration == one.number:
        words.append("recommended")
    rival = analysis.rival(one.number)
    if rival is not None:
        words.append("worse" if rival.is_worse else "not significantly worse")
    if on_front:
        words.append("on the front")
    return ", ".join(words)


def _shown(spread: Spread | None) -> str:
    return "" if spread is None else spread.shown()


def _filters(report: SweepReport) -> str:
    """Return one choice for each column with few values, and a text that rows must contain."""
    columns: dict[str, list[str]] = {"status": [trial.status for trial in report.trials]}
    names = short_names(report.facts.paths)
    for path in report.facts.paths:
        columns[names[path]] = [shown(trial.point.get(path)) for trial in report.trials]
    parts = []
    for name, values in columns.items():
        distinct = list(dict.fromkeys(values))
        if 1 < len(distinct) <= 12:
            options = "".join(f"<option>{escape(value)}</option>" for value in sorted(distinct))
            parts.append(
                f'<label>{escape(name)} <select data-column="{escape(name)}">'
                f"<option value=''>all</option>{options}</select></label>"
            )
    text = '<label>contains <input type=search data-any placeholder="any text"></label>'
    return f'<form class=filters data-for="trials">{"".join(parts)}{text}<output></output></form>'


def _trials(report: SweepReport) -> str:
    facts, names = report.facts, short_names(report.facts.paths)
    metrics = sorted({name for trial in report.trials for name in trial.metrics} - {facts.metric})
    heads = ["rank", "trial", "configuration", "seed", *(names[path] for path in facts.paths)]
    heads += [facts.metric, *metrics, "precision", "runs on", "time", "cost", "tokens/s", "memory"]
    heads += ["energy", "status"]
    rows = []
    for rank, trial in enumerate(report.ranked, start=1):
        last = trial.stays[-1] if trial.stays else None
        rows.append(
            [
                str(rank) if trial.status == "finished" else "",
                str(trial.number),
                str(trial.configuration),
                str(trial.seed),
                *(shown(trial.point.get(path)) for path in facts.paths),
                *(_score(trial, name) for name in (facts.metric, *metrics)),
                trial.precision or "",
                (last.node_type or last.chip) if last else "",
                format_duration(trial.wall_seconds) if trial.wall_seconds else "",
                "" if trial.cost is None else money(trial.cost, facts.currency),
                f"{trial.tokens_per_second:,.0f}" if trial.tokens_per_second else "",
                format_size(trial.peak_memory_bytes) if trial.peak_memory_bytes else "",
                f"{trial.energy_joules:,.0f} J" if trial.energy_joules is not None else "",
                trial.status,
            ]
        )
    keys = [_sort_keys(trial) for trial in report.ranked]
    return _table(heads, rows, name="trials", keys=keys)


def _sort_keys(trial: TrialRecord) -> dict[str, float | None]:
    """Return what columns whose text does not sort by itself are sorted by."""
    return {
        "time": trial.wall_seconds,
        "cost": trial.cost,
        "memory": trial.peak_memory_bytes,
        "energy": trial.energy_joules,
        "tokens/s": trial.tokens_per_second,
    }


def _score(trial: TrialRecord, name: str) -> str:
    return f"{trial.metrics[name]:.4f}" if name in trial.metrics else ""


def _incidents(report: SweepReport) -> str:
    items = []
    for trial in sorted(report.trials, key=lambda one: one.number):
        told = [*trial.incidents]
        if trial.reason and trial.status != "finished":
            told.append(f"{trial.status}: {trial.reason}")
        items += [f"<li>trial {trial.number}: {escape(one)}</li>" for one in told]
    return f"<ul class=incidents>{''.join(items)}</ul>" if items else ""


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    name: str,
    keys: Sequence[dict[str, float | None]] | None = None,
) -> str:
    """Return a table that the page's script sorts; columns without any text are left out."""
    kept = [place for place in range(len(heads)) if any(row[place] for row in rows)]
    head = "".join(
        f"<th aria-sort=none><button>{escape(heads[place])}</button></th>" for place in kept
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_key(keys[number] if keys else {}, heads[place])}>{escape(row[place])}</td>"
            for place in kept
        )
        + "</tr>"
        for number, row in enumerate(rows)
    )
    table = f'<table id="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"<div class=wide>{table}</div>"


def _key(keys: dict[str, float | None], head: str) -> str:
    value = keys.get(head)
    return "" if value is None else f' data-key="{value!r}"'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def _data(plots: Iterable[Plot]) -> str:
    content: dict[str, Any] = {
        plot.slug: [variant.to_json() for variant in plot.variants()] for plot in plots
    }
    # A "<" could end the block; within JSON it occurs in texts alone.
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="figures">{text}</script>'
