"""The learning-curve picture of a run, drawn from its event log alone."""

from __future__ import annotations

from pathlib import Path

from kovar.events import read_events


def draw_curve(events: Path, picture: Path, *, title: str) -> None:
    """Draw training loss, evaluation loss, accuracy and learning rate over the steps as a PNG.

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
    for name, color in (("accuracy", "tab:green"), ("macro_f1", "tab:purple")):
        quality.plot(marks, [scores[s][name] for s in marks], "o-", color=color, label=name)
    if marks:
        best = max(marks, key=lambda s: scores[s]["accuracy"])
        quality.annotate(
            f"{scores[best]['accuracy']:.3f}",
            (best, scores[best]["accuracy"]),
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
        )
    quality.margins(y=0.25)
    quality.set_ylabel("on the evaluation split")
    quality.set_xlabel("step")
    quality.legend(loc="lower right")
    for axis in (loss, quality):
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)
