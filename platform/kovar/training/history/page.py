"""A run as one page that needs no network: curves, where the time went, attempts, spec."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from html import escape
from typing import Any, Final

from kovar.config import format_duration
from kovar.registry.html_page import html_page
from kovar.training.folder import RunFolder
from kovar.training.history.chart import Mark, Series, line_chart
from kovar.training.history.finding import Finding, findings, why_ended
from kovar.training.history.moment import number
from kovar.training.history.page_style import SCRIPT, STYLE
from kovar.training.history.run_history import RunHistory, read_history
from kovar.training.history.timeline import MEANING, Timeline

_log: Final = logging.getLogger(__name__)


def run_page(history: RunHistory) -> str:
    """Write the page of a run, finished or not; equal histories give equal bytes."""
    body = "\n".join(
        part
        for part in (
            _head(history),
            _ending(history),
            _section("Curves", _curves(history)),
            _section("Where the time went", _times(history.timeline)),
            _section("What stands out", _list(findings(history))),
            _section("Attempts", _attempts(history)),
            _section("Metrics", _metrics(history)),
            _section("Plan", _facts(_plain(history.plan, "placement", "cost"))),
            _section("Spec", _json(history.spec)),
        )
        if part
    )
    return html_page(f"{history.model} · {history.run}", body, style=STYLE, script=SCRIPT)


@contextmanager
def keeping_page(folder: RunFolder) -> Iterator[None]:
    """Write a run's page when the block has ended, however it ended.

    A page that cannot be written is told as a warning, whatever the reason: no run fails for it.
    """
    try:
        yield
    finally:
        try:
            folder.page.write_text(run_page(read_history(folder)), encoding="utf-8")
        except Exception as problem:
            _log.warning("the page %s cannot be written: %s", folder.page, problem)


def _head(history: RunHistory) -> str:
    speed, best = history.throughput, history.best
    last = int(number(history.steps[-1], "step")) if history.steps else 0
    tiles = {
        "wall time": format_duration(history.timeline.total_s),
        "steps": f"{last:,} of {history.num_steps:,}" if history.num_steps else "none",
        "attempts": str(len(history.attempts)),
    }
    if history.score is not None:
        name, value = history.score
        tiles[name.replace("_", " ")] = f"{value:.4f}"
        if best is not None and name in best[1]:
            tiles["best"] = f"{best[1][name]:.4f} at {best[0]:,}"
    if speed is not None:
        tiles["tokens/s"] = f"{speed.tokens_per_s:,.0f}"
        tiles["padding"] = f"{speed.padding:.1%}"
        if speed.flops_per_s:
            tiles["achieved"] = f"{speed.flops_per_s / 1e12:.3g} TFLOP/s"
        if speed.peak_share:
            tiles["of the peak"] = f"{speed.peak_share:.1%}"
    if history.dollars is not None:
        tiles["cost"] = f"${history.dollars:,.2f}"
    shown = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in tiles.items()
    )
    return (
        f'<h1>{escape(history.model)} <span class="pill {history.status}">{history.status}</span>'
        f"</h1>\n<p class=sub><code>{escape(history.run)}</code>{_started(history)}</p>\n"
        f"<dl class=tiles>{shown}</dl>"
    )


def _started(history: RunHistory) -> str:
    if history.started_at is None:
        return ""
    moment = datetime.fromtimestamp(history.started_at).astimezone()
    devices = {(a.world_size, a.device, a.precision) for a in history.attempts[-1:]}
    where = "".join(f" · {count} × {kind}, {how}" for count, kind, how in devices)
    return escape(f" · submitted {moment:%Y-%m-%d %H:%M:%S %Z}{where}")


def _ending(history: RunHistory) -> str:
    why = why_ended(history)
    if why is None:
        return ""
    advice = f"<p>→ {escape(why.advice)}</p>" if why.advice else ""
    return f'<div class="ending {history.status}"><p>{escape(why.what)}</p>{advice}</div>'


def _curves(history: RunHistory) -> str:
    marks = [
        Mark(float(a.resumed_from), f"attempt {a.number}")
        for a in history.attempts
        if a.resumed_from is not None
    ]

    def told(name: str, field: str) -> Series:
        found = [(number(e, "step"), number(e, field)) for e in history.steps if field in e]
        return Series(name, found)

    speed = [
        (number(e, "step"), number(e, "tokens") / number(e, "seconds"))
        for e in history.steps
        if number(e, "seconds") > 0
    ]
    scores = _scores(history)
    loss = [told("training", "loss")]
    if "loss" in scores:
        loss.append(Series("evaluation", scores.pop("loss"), dotted=True))
    quality = [Series(name.replace("_", " "), p, dotted=True) for name, p in scores.items()]
    shares = [one for one in quality if all(0 <= y <= 1 for _, y in one.points)]
    last = max((number(e, "step") for e in (*history.steps, *history.evaluations)), default=0.0)
    draw = partial(line_chart, marks=marks, last=last)
    charts = [
        draw("Loss (nats)", loss, from_zero=True),
        draw("Evaluation", shares[:5], top=1.0),
        *(draw(one.name.capitalize(), [one]) for one in quality if one not in shares),
        draw("Learning rate", [told("learning rate", "learning_rate")], from_zero=True),
        draw("Gradient norm, before clipping", [told("largest", "gradient_norm")]),
        draw("Speed (tokens/s)", [Series("tokens/s", speed)], from_zero=True),
        draw("Padding", [told("padding", "padding")], from_zero=True, percent=True),
        draw("Memory (bytes)", [told("peak", "memory_bytes")], from_zero=True),
    ]
    return f"<div class=charts>{''.join(charts)}</div>" if any(charts) else ""


def _scores(history: RunHistory) -> dict[str, list[tuple[float, float]]]:
    scores: dict[str, list[tuple[float, float]]] = {}
    for event in history.evaluations:
        metrics = event.get("metrics")
        for name, value in metrics.items() if isinstance(metrics, dict) else ():
            if isinstance(value, int | float):
                scores.setdefault(name, []).append((number(event, "step"), float(value)))
    return scores


def _times(timeline: Timeline) -> str:
    total = timeline.total_s
    if total <= 0:
        return ""
    start = timeline.spans[0].start
    strip = "".join(
        f'<rect class="p-{span.phase}" x="{1000 * (span.start - start) / total:.2f}" y="0" '
        f'width="{max(1000 * span.seconds / total, 0.4):.2f}" height="30">'
        f"<title>{span.phase} {format_duration(span.seconds)}</title></rect>"
        for span in timeline.spans
    )
    rows = "".join(
        f'<tr><td><i class="p-{phase}"></i>{phase}</td><td class=n>{format_duration(seconds)}</td>'
        f"<td class=n>{seconds / total:.1%}</td><td class=bar><svg viewBox='0 0 100 8' "
        f"preserveAspectRatio=none><rect class='p-{phase}' width='{100 * seconds / total:.2f}' "
        f"height='8'/></svg></td><td class=soft>{escape(MEANING[phase])}</td></tr>"
        for phase, seconds in sorted(timeline.seconds.items(), key=lambda one: -one[1])
    )
    ends = f"<span>0 s</span><span>{format_duration(total)}</span>"
    return (
        '<svg class="strip" role="img" aria-label="phases in their order" '
        f'viewBox="0 0 1000 30" preserveAspectRatio="none">{strip}</svg>'
        f"<div class=ends>{ends}</div><table class=times>{rows}</table>"
    )


def _attempts(history: RunHistory) -> str:
    rows = [
        (
            str(one.number),
            f"{one.world_size} × {one.device}",
            one.precision,
            "" if one.resumed_from is None else f"step {one.resumed_from:,}",
            f"{one.last_step:,}",
            f"{one.num_repeated:,}" if one.num_repeated else "",
            format_duration(one.lost_s) if one.lost_s else "",
            one.outcome,
            one.cause or "",
        )
        for one in history.attempts
    ]
    heads = ["#", "workers", "precision", "resumed", "last", "repeated", "lost", "outcome", "cause"]
    heads[3:7] = ["resumed from", "last step", "steps repeated", "time lost"]
    return _table(heads, rows)


def _metrics(history: RunHistory) -> str:
    best, last = history.best, history.metrics
    columns = [(f"best, step {best[0]:,}", best[1])] if best else []
    columns.append(("final" if history.status == "finished" else "last", last))
    names = sorted({name for _, metrics in columns for name in metrics})
    rows = [
        (
            name.replace("_", " "),
            *(f"{metrics[name]:.6g}" if name in metrics else "" for _, metrics in columns),
        )
        for name in names
    ]
    return _table(["metric", *(head for head, _ in columns)], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _list(found: Iterable[Finding]) -> str:
    items = "".join(
        f"<li>{escape(one.what)}{f'<br>→ {escape(one.advice)}' if one.advice else ''}</li>"
        for one in found
    )
    return f"<ul>{items}</ul>" if items else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}</section>" if content else ""


def _facts(facts: Mapping[str, Any]) -> str:
    return _table(["", ""], [(k, _text(v)) for k, v in facts.items()]) if facts else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(plan: Mapping[str, Any], *nested: str) -> dict[str, Any]:
    """Keep what a reader wants to know of a plan: not what an event's line adds."""
    known = ("device", "precision", "reason", "num_workers", "request", *nested)
    return {name: plan[name] for name in known if plan.get(name) is not None}


def _json(value: Mapping[str, Any]) -> str:
    if not value:
        return ""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return (
        f"<details><summary>every field</summary><pre><code>{escape(text)}</code></pre></details>"
    )
