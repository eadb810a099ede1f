"""The facts about this process that a manifest records: packages, Python, chip, code revision."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path

from kovar.registry.manifest import EnvironmentFacts, SourceFacts


def current_environment(*, chip: str, driver: str | None = None) -> EnvironmentFacts:
    """Describe the Python environment of this process.

    Args:
        chip: the processor that the work ran on.
        driver: driver and runtime of the accelerator, when there is one.
    """
    packages = {
        found.name.lower().replace("_", "-"): found.version
        for found in distributions()
        if found.name
    }
    return EnvironmentFacts(
        python=platform.python_version(),
        packages=dict(sorted(packages.items())),
        chip=chip,
        platform=f"{platform.system()} {platform.machine()}",
        driver=driver,
    )


def source_revision(folder: Path) -> SourceFacts | None:
    """Return the Git commit of a folder, or None where there is no repository or no Git."""
    revision = _git(folder, "rev-parse", "HEAD")
    if not revision:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return SourceFacts(revision=revision, dirty=changes != "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
