"""Where curves go beside the event log: TensorBoard, Weights & Biases, MLflow."""

from kovar.training.trackers.feed import check_trackers, tracking
from kovar.training.trackers.scalars import Point, ScalarReader
from kovar.training.trackers.tracker import TrackedRun, Tracker

__all__ = ["Point", "ScalarReader", "TrackedRun", "Tracker", "check_trackers", "tracking"]
