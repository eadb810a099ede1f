"""The model card as one HTML page that needs no network: its plots are inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from kovar.registry.card import card, intervals_of
from kovar.registry.html_page import html_page
from kovar.registry.interval import Interval, wilson
from kovar.registry.version import Version

_SCORES: Final = ("f1", "precision", "recall", "micro_f1", "accuracy", "macro_f1")
_MAX_LABELS: Final = 20
_CELL: Final = 64
_ROW: Final = 30
_BARS: Final = 260
_LABEL_CHARS: Final = 16


def card_html(version: Version, aliases: Iterable[str] = ()) -> str:
    """Write the card as a page; equal facts give equal bytes.

    Args:
        version: the version.
        aliases: names that point at it now.
    """
    from markdown_it import MarkdownIt

    # What people wrote about a version stays text: no HTML of theirs, no pictures from elsewhere.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    body = markdown.render(card(version, aliases))
    for name, metrics in sorted(version.manifest.metrics.items()):
        heading = f"<h3>{escape(' '.join(name.split()), quote=False)}</h3>"
        body = body.replace(heading, f"{heading}\n{_figures(metrics, version)}", 1)
    return html_page(str(version), body)


def _figures(metrics: Mapping[str, Any], version: Version) -> str:
    figures = [_scores(metrics)]
    labels = [str(label) for label in metrics.get("labels") or version.manifest.signature.labels]
    per_class = metrics.get("per_class")
    if isinstance(per_class, dict) and 0 < len(per_class) <= _MAX_LABELS:
        figures.append(_recalls(per_class))
    matrix = metrics.get("confusion_matrix")
    if isinstance(matrix, list) and 0 < len(matrix) <= _MAX_LABELS:
        names = labels if len(labels) == len(matrix) else [str(i) for i in range(len(matrix))]
        figures.append(_heat_map(matrix, names))
    return "\n".join(figure for figure in figures if figure)


def _scores(metrics: Mapping[str, Any]) -> str:
    intervals = intervals_of(metrics)
    rows = [
        (key.replace("_", " "), float(metrics[key]), intervals.get(key))
        for key in _SCORES
        if isinstance(metrics.get(key), int | float)
    ]
    return _bars("Scores with 95 % intervals", rows)


def _recalls(per_class: Mapping[str, Any]) -> str:
    rows = []
    for label, values in per_class.items():
        recall, support = values.get("recall"), values.get("support")
        if isinstance(recall, int | float):
            known = isinstance(support, int) and support > 0
            rows.append((label, float(recall), wilson(recall, support) if known else None))
    return _bars("Recall per class with 95 % intervals", rows)


def _bars(title: str, rows: Sequence[tuple[str, float, Interval | None]]) -> str:
    """Draw horizontal bars from 0 to 1, each with a whisker for its interval."""
    if not rows:
        return ""
    left, bottom = 130, _ROW * len(rows)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + tick * _BARS
        parts += [
            f'<path d="M{x:.1f} 0V{bottom}" stroke="var(--line)" stroke-width="1"/>',
            f'<text class="soft" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">'
            f"{tick:g}</text>",
        ]
    for index, (label, value, interval) in enumerate(rows):
        y = index * _ROW
        parts += [
            f'<text x="{left - 10}" y="{y + 19}" text-anchor="end">{_short(label)}</text>',
            f'<rect x="{left}" y="{y + 6}" width="{value * _BARS:.1f}" height="18" rx="2" '
            'fill="rgb(var(--bar) / .55)"/>',
            f'<text x="{left + _BARS + 12}" y="{y + 19}">{value:.3f}</text>',
        ]
        if interval:
            low, high = (left + end * _BARS for end in interval)
            parts.append(
                f'<path d="M{low:.1f} {y + 15}H{high:.1f}M{low:.1f} {y + 10}v10'
                f'M{high:.1f} {y + 10}v10" stroke="var(--mark)" stroke-width="2" fill="none"/>'
            )
    return _figure(title, left + _BARS + 60, bottom + 22, parts)


def _heat_map(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Draw a confusion matrix; the colour is the share of the true label's rows."""
    left, top, size = 130, 44, len(matrix)
    parts = [
        f'<text class="soft" x="{left + size * _CELL / 2}" y="12" text-anchor="middle">'
        "predicted</text>",
        f'<text class="soft" x="{left - 10}" y="{top - 10}" text-anchor="end">true</text>',
    ]
    for row, counts in enumerate(matrix):
        y, total = top + row * _CELL, sum(counts)
        parts.append(
            f'<text x="{left - 10}" y="{y + _CELL / 2 + 5}" text-anchor="end">'
            f"{_short(labels[row])}</text>"
        )
        parts.append(
            f'<text x="{left + (row + 0.5) * _CELL}" y="{top - 10}" text-anchor="middle">'
            f"{_short(labels[row], 8)}</text>"
        )
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            x = left + column * _CELL
            parts += [
                f'<rect x="{x}" y="{y}" width="{_CELL - 2}" height="{_CELL - 2}" rx="3" '
                f'fill="rgb(var(--bar) / {0.06 + 0.6 * share:.2f})"/>',
                f'<text x="{x + _CELL / 2 - 1}" y="{y + _CELL / 2 - 2}" text-anchor="middle">'
                f"{count:,}</text>",
                f'<text x="{x + _CELL / 2 - 1}" y="{y + _CELL / 2 + 15}" '
                f'text-anchor="middle">{share:.0%}</text>',
            ]
    return _figure("Confusion matrix", left + size * _CELL, top + size * _CELL, parts)


def _figure(title: str, width: float, height: float, parts: Iterable[str]) -> str:
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg role="img" aria-label="{escape(title)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(parts)}</svg></figure>'
    )


def _short(text: str, length: int = _LABEL_CHARS) -> str:
    plain = " ".join(text.split())
    return escape(plain if len(plain) <= length else f"{plain[: length - 1]}…")
