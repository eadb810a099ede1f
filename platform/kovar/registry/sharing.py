"""Whether every node of a cluster reaches the registry: decided before a run is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kovar.errors import SettingsError
from kovar.settings import Settings, is_simulated

MOUNTS_FILE: Final = Path("/proc/self/mounts")
NETWORK_FILE_SYSTEMS: Final = (
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "glusterfs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "orangefs",
    "panfs",
    "smb3",
    "wekafs",
)
"""Types that several machines mount; any FUSE type except the local ones counts, too."""
_LOCAL_FUSE: Final = ("fuse.lxcfs", "fuse.portal", "fuse.fuse-overlayfs", "fuseblk", "fusectl")


def check_shared(
    settings: Settings, *, num_nodes: int, mounts: Mapping[str, str] | None = None
) -> None:
    """Refuse a registry that lives on one node when a run uses several.

    A pure function of its arguments when `mounts` is given, but for a simulated cluster.

    Args:
        settings: where the registry is.
        num_nodes: nodes that the run uses.
        mounts: mount point → type of file system; this machine's by default.

    Raises:
        SettingsError: naming the setting, the folder and what to set it to.
    """
    if num_nodes <= 1 or is_simulated():  # simulated nodes are all this machine
        return
    if settings.database_url.startswith("sqlite"):
        raise SettingsError(
            f"an SQLite database belongs to one machine, and the run uses {num_nodes} nodes",
            field="database_url",
            got=settings.database_url,
            allowed="postgresql+psycopg://user@host/name",
            hint="set KOVAR_DATABASE_URL to a PostgreSQL database that every node reaches; "
            "SQLite's journal does not work over a network file system either",
        )
    mounts = read_mounts() if mounts is None else mounts
    if "://" not in settings.artifact_root and not is_shared(settings.artifact_root, mounts):
        raise SettingsError(
            f"the artifacts lie on a disk of this node, and the run uses {num_nodes} nodes",
            field="artifact_root",
            got=settings.artifact_root,
            allowed="s3://, gs:// or hdfs://, or a folder on a network file system",
            hint="set KOVAR_ARTIFACT_ROOT to a place that every node reaches",
        )
    if not is_shared(str(settings.runs_dir), mounts):
        raise SettingsError(
            f"the runs lie on a disk of this node, and the run uses {num_nodes} nodes",
            field="runs_dir",
            got=str(settings.runs_dir),
            allowed="a folder on a network file system (NFS, Lustre, a FUSE mount of a bucket, …)",
            hint="set KOVAR_RUNS_DIR to such a folder: checkpoints written by one node are read "
            "by the others",
        )


def is_shared(folder: str, mounts: Mapping[str, str]) -> bool:
    """Whether a folder is on a file system that several machines can mount."""
    inside = [point for point in mounts if Path(folder).is_relative_to(point)]
    kind = mounts[max(inside, key=len)] if inside else ""
    fuse = kind.startswith("fuse") and kind not in _LOCAL_FUSE
    return kind in NETWORK_FILE_SYSTEMS or fuse


def read_mounts() -> dict[str, str]:
    """Return mount point → type of file system on this machine; empty where that is unknown."""
    try:
        lines = MOUNTS_FILE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    # Spaces in a mount point are written as octal escapes.
    return {
        point.encode().decode("unicode_escape"): kind
        for _, point, kind, *_ in (line.split() for line in lines)
    }
