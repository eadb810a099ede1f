"""The learning-curve picture of a run, drawn from its event log alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kovar.events import read_events

COLORS: Final = ("tab:green", "tab:purple", "tab:red", "tab:brown")


def draw_curve(events: Path, picture: Path, *, title: str) -> None:
    """Draw losses, learning rate and the metrics that are shares over the steps as a PNG.

    Steps that an interrupted attempt repeated are drawn once, as the last attempt saw them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = list(read_events(events))
    steps = {r["step"]: r for r in records if r["event"] == "step"}
    scores = {
        r["step"]: r["metrics"] for r in records if r["event"] == "evaluated" and not r.get("final")
    }
    x, marks = sorted(steps), sorted(scores)
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, quality = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    loss.set_title(title)
    loss.plot(x, [steps[s]["loss"] for s in x], color="tab:blue", label="training loss")
    loss.plot(
        marks, [scores[s]["loss"] for s in marks], "o-", color="tab:orange", label="evaluation loss"
    )
    loss.set_ylabel("cross-entropy (nats)")
    loss.set_ylim(bottom=0)
    rate = loss.twinx()
    rate.plot(x, [steps[s]["learning_rate"] for s in x], color="0.7", linestyle="--")
    rate.set_ylabel("learning rate", color="0.5")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    loss.legend(loc="lower left")
    names = _shares(list(scores.values()))
    for name, color in zip(names, COLORS, strict=False):
        quality.plot(marks, [scores[s][name] for s in marks], "o-", color=color, label=name)
    if names:
        best = max(marks, key=lambda s: scores[s][names[0]])
        quality.annotate(
            f"{scores[best][names[0]]:.3f}",
            (best, scores[best][names[0]]),
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
        )
    quality.margins(y=0.25)
    quality.set_ylabel("on the evaluation split")
    quality.set_xlabel("step")
    if names:
        quality.legend(loc="lower right")
    for axis in (loss, quality):
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def _shares(evaluations: list[dict[str, float]]) -> list[str]:
    """Return the metrics between 0 and 1 that all evaluations have, but for the loss."""
    return [
        name
        for name in (evaluations[0] if evaluations else {})
        if name != "loss" and all(0 <= metrics.get(name, -1) <= 1 for metrics in evaluations)
    ]
