"""A linter for cluster files, beyond what Ray's own schema refuses."""

from kovar.resources.lint.finding import Finding
from kovar.resources.lint.linter import lint_cluster, unfilled

__all__ = ["Finding", "lint_cluster", "unfilled"]
