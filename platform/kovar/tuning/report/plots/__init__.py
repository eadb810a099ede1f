"""The plots of a sweep, each drawn on the page and as a PNG."""

from kovar.tuning.report.plots.gallery import draw_pictures, make_plots
from kovar.tuning.report.plots.plot import Plot, Variant

__all__ = ["Plot", "Variant", "draw_pictures", "make_plots"]
