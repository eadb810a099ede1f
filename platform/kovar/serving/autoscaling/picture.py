"""The picture of a rehearsal: traffic, replicas and latency over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kovar.serving.autoscaling.replay import Replay


def draw_replay(replay: Replay, picture: Path, *, title: str) -> None:
    """Draw a rehearsal as a PNG; long ones by the highest value of each slice of time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    step = max(1, len(replay.running) // 2000)
    starts = range(0, len(replay.running), step)
    scale, unit = (3600, "hours") if len(replay.running) > 7200 else (60, "minutes")
    x = [start / scale for start in starts]

    def peaks(values: Any) -> list[float]:
        return [max(values[start : start + step]) for start in starts]

    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    traffic, replicas, latency = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 2))
    traffic.set_title(title)
    traffic.fill_between(x, peaks(replay.arriving), color="tab:blue", alpha=0.5, linewidth=0)
    traffic.set_ylabel("tokens/s arriving")
    replicas.step(x, peaks(replay.target), where="post", color="tab:orange", label="wanted")
    replicas.step(x, peaks(replay.running), where="post", color="tab:green", label="running")
    replicas.set_ylabel("replicas")
    replicas.legend(loc="upper left")
    seconds = range(len(replay.running))
    worst = peaks([replay.latency_at(second, 0.99) * 1000 for second in seconds])
    latency.plot(x, worst, color="tab:purple", label="p99")
    objective = replay.rules.latency_objective_s * 1000
    latency.axhline(objective, color="tab:red", linestyle="--", label="objective")
    latency.set_yscale("log")
    latency.set_ylabel("latency (ms)")
    latency.set_xlabel(unit)
    latency.legend(loc="upper left")
    for axis in (traffic, replicas):
        axis.set_ylim(bottom=0)
    for axis in (traffic, replicas, latency):
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)
