"""Sweeps over the fields of a fine-tuning spec, on Ray Tune."""

from kovar.tuning.points import Sweep, TrialSpec, draw_points, load_sweep
from kovar.tuning.record import TrialRecord
from kovar.tuning.report import SweepReport
from kovar.tuning.run import run_sweep
from kovar.tuning.spec import SweepSpec

__all__ = [
    "Sweep",
    "SweepReport",
    "SweepSpec",
    "TrialRecord",
    "TrialSpec",
    "draw_points",
    "load_sweep",
    "run_sweep",
]
