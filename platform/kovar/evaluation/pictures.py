"""Pictures of an evaluation: the reliability diagram and the confusion matrix, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kovar.evaluation.calibration import ReliabilityBin, expected_calibration_error

MAX_NUMBERED_LABELS: Final = 20
"""A larger confusion matrix shows colors alone."""


def draw_reliability(bins: Sequence[ReliabilityBin], path: Path, *, title: str) -> None:
    """Draw accuracy over confidence, and below it how many rows each bin holds.

    Args:
        bins: rows by confidence; see `kovar.evaluation.reliability`.
        path: the PNG file to write.
        title: what was evaluated.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    known = [one for one in bins if one.num_rows]
    edges, width = [one.low for one in known], [one.high - one.low for one in known]
    upper.bar(
        edges, [one.accuracy for one in known], width, align="edge", edgecolor="white", alpha=0.8
    )
    upper.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1)
    upper.plot([one.confidence for one in known], [one.accuracy for one in known], "ko", ms=3)
    upper.set(ylim=(0, 1), ylabel="accuracy")
    upper.set_title(f"{title}\ncalibration error {expected_calibration_error(bins):.4f}")
    lower.bar(edges, [one.num_rows for one in known], width, align="edge", edgecolor="white")
    lower.set(xlim=(0, 1), xlabel="confidence", ylabel="rows")
    figure.savefig(path, dpi=120)


def draw_confusion(
    matrix: Sequence[Sequence[int]], labels: Sequence[str], path: Path, *, title: str
) -> None:
    """Draw a confusion matrix, colored by the share of each true label.

    Args:
        matrix: rows (true) of columns (predicted).
        labels: names in index order.
        path: the PNG file to write.
        title: what was evaluated.
    """
    import numpy as np
    from matplotlib.figure import Figure

    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(16.0, 3.5 + 0.5 * len(labels))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true label")
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=45, ha="right")
    axes.set_yticks(places, labels)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if len(labels) <= MAX_NUMBERED_LABELS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color)
    figure.savefig(path, dpi=120)
