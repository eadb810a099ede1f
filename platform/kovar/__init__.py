"""Kovar: from a labelled data set and a base model to an autoscaled, audited endpoint on Ray."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("kovar-platform")
except PackageNotFoundError:  # run from a source tree, as `ray job submit --working-dir .` does
    __version__ = "0.1.0"
__all__ = ["__version__"]
