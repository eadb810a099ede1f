"""Verified local copies of versions: `<cache>/versions/<digest>/`, as a loader wants them.

Beside each folder, `<digest>.json` notes size, modification time and inode of each file when it
was verified. A folder that no longer matches its note is made again from the artifact store.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from kovar.registry.artifacts import ArtifactStore, hash_file
from kovar.registry.manifest import Manifest
from kovar.settings import ensure_writable


class VersionCache:
    """The materialized versions of one machine.

    Args:
        folder: the `versions` folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def materialize(
        self, digest: str, manifest: Manifest, artifacts: ArtifactStore, *, rehash: bool = False
    ) -> Path:
        """Return the folder that holds exactly the files of a version.

        Args:
            digest: the version's.
            manifest: the version's.
            artifacts: where the blobs are.
            rehash: read and hash every file even if nothing touched it since it was verified.

        Raises:
            DamagedArtifactError: a blob is missing, truncated or altered.
            SettingsError: the cache cannot be written.
        """
        folder = self.folder / digest
        if self._intact(digest, manifest, rehash=rehash):
            return folder
        from filelock import FileLock

        ensure_writable(self.folder, field="cache_dir")
        with FileLock(self.folder / f"{digest}.lock"):
            if not self._intact(digest, manifest, rehash=rehash):
                self._build(digest, manifest, artifacts)
        return folder

    def _build(self, digest: str, manifest: Manifest, artifacts: ArtifactStore) -> None:
        folder = self.folder / digest
        # Named by the digest, so that the next build removes what a killed one left.
        fresh, stale = self.folder / f".{digest}.new", self.folder / f".{digest}.old"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            for entry in manifest.files:
                target = fresh / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                artifacts.fetch(entry, target)
            if folder.exists():
                folder.rename(stale)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(stale, ignore_errors=True)
        note = self.folder / f".{digest}.json"
        note.write_text(json.dumps(_state(folder)))
        note.replace(self._note(digest))

    def _intact(self, digest: str, manifest: Manifest, *, rehash: bool) -> bool:
        try:
            noted = json.loads(self._note(digest).read_text())
        except (OSError, ValueError):
            return False
        folder = self.folder / digest
        if _state(folder) != noted or noted.keys() != {file.path for file in manifest.files}:
            return False
        return not rehash or all(
            hash_file(folder / file.path) == file.sha256 for file in manifest.files
        )

    def _note(self, digest: str) -> Path:
        return self.folder / f"{digest}.json"


def _state(folder: Path) -> dict[str, list[int]]:
    state = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            seen = path.lstat()
            key = path.relative_to(folder).as_posix()
            state[key] = [seen.st_size, seen.st_mtime_ns, seen.st_ino]
    return state
