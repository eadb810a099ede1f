from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kovar.data.cache import ensure_folder, read_meta
from kovar.errors import SettingsError


def build(folder: Path) -> dict[str, Any]:
    (folder / "rows.txt").write_text("one\ntwo\n")
    return {"rows": 2}


def test_a_folder_is_built_once(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "entry"
    assert not ensure_folder(folder, build=build)
    assert ensure_folder(folder, build=build)
    assert read_meta(folder) == {"rows": 2, "files": {"rows.txt": 8}}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "meta.json").unlink(), "meta.json is missing"),
        (lambda folder: (folder / "meta.json").write_text("{"), "meta.json is damaged"),
        (lambda folder: (folder / "rows.txt").unlink(), "rows.txt is missing"),
        (lambda folder: (folder / "rows.txt").write_text("one"), "3 bytes instead of 8 bytes"),
    ],
)
def test_a_damaged_folder_is_rebuilt_and_the_reason_logged(
    damage: Any, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "entry"
    ensure_folder(folder, build=build)
    damage(folder)
    with caplog.at_level(logging.WARNING, logger="kovar.data"):
        assert not ensure_folder(folder, build=build)
    assert reason in caplog.text
    assert (folder / "rows.txt").read_text() == "one\ntwo\n"


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        build(folder)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        ensure_folder(tmp_path / "entry", build=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["entry.lock"]


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".entry.abc123" / "content").mkdir(parents=True)
    ensure_folder(tmp_path / "entry", build=build)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry", "entry.lock"]


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    with pytest.raises(SettingsError, match=r"cannot write the cache: No space left on device"):
        ensure_folder(tmp_path / "entry", build=fail)


def test_several_processes_build_it_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path[:0] = sys.argv[2].split(':')\n"
        "from kovar.data.cache import ensure_folder\n"
        "def build(folder):\n"
        "    (folder / 'rows.txt').write_text('x'); return {}\n"
        "print(ensure_folder(pathlib.Path(sys.argv[1]), build=build))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "entry"), ":".join(sys.path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = sorted(process.communicate()[0].strip() for process in processes)
    assert found == ["False", "True", "True"]
