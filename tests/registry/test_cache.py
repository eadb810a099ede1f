"""The local copies of versions: a bound in bytes, and what is in use stays."""

import os
import shutil
import subprocess
import sys

import pytest
from pyarrow.fs import LocalFileSystem

from kovar.registry.artifacts import RemoteArtifacts
from kovar.registry.cache import VersionCache
from kovar.registry.formats import SourceFile
from kovar.registry.manifest import Manifest

SIZE = 1_000_000
USE = """
import sys
from pathlib import Path
from kovar.registry.cache import VersionCache
VersionCache(Path(sys.argv[1]))._use(sys.argv[2])
print("in use", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path) -> RemoteArtifacts:
    return RemoteArtifacts(LocalFileSystem(), str(tmp_path / "artifacts"))


@pytest.fixture
def cache(tmp_path):
    cache = VersionCache(tmp_path / "versions", max_bytes=int(2.5 * SIZE))
    yield cache
    for path in cache.folder.glob("*.use"):
        cache.release(path.stem)


@pytest.fixture
def manifests(tmp_path, store, facts) -> list[Manifest]:
    """Four versions of a megabyte each."""
    made = []
    for _ in range(4):
        (tmp_path / "weights").write_bytes(os.urandom(SIZE))
        entry = store.put(SourceFile("a.txt", tmp_path / "weights", SIZE))
        made.append(Manifest.of(facts, [entry]))
    return made


def fill(cache, store, manifests, *, release: bool = True) -> None:
    """Use versions one after the other, as if a second passed between two."""
    for second, manifest in enumerate(manifests, start=1):
        cache.materialize(manifest.digest, manifest, store)
        os.utime(cache.folder / f"{manifest.digest}.use", (second, second))
        if release:
            cache.release(manifest.digest)


def kept(cache, manifests) -> list[int]:
    return [n for n, each in enumerate(manifests) if (cache.folder / each.digest).exists()]


def test_the_versions_used_longest_ago_are_evicted(cache, store, manifests):
    fill(cache, store, manifests[:2])
    os.utime(cache.folder / f"{manifests[0].digest}.use", (50, 50))
    fill(cache, store, manifests[2:3])
    assert kept(cache, manifests) == [0, 2]


def test_an_evicted_version_comes_back_whole(cache, store, manifests):
    fill(cache, store, manifests)
    assert kept(cache, manifests) == [2, 3]
    folder = cache.materialize(manifests[0].digest, manifests[0], store)
    assert (folder / "a.txt").stat().st_size == SIZE


def test_without_a_bound_nothing_is_evicted(cache, store, manifests):
    cache.max_bytes = None
    fill(cache, store, manifests)
    assert kept(cache, manifests) == [0, 1, 2, 3]


def test_what_this_process_uses_stays_even_beyond_the_bound(cache, store, manifests, caplog):
    fill(cache, store, manifests, release=False)
    assert kept(cache, manifests) == [0, 1, 2, 3]
    assert "in use take 1.4 MiB more than the bound" in caplog.text


def test_what_another_process_uses_stays_until_it_ends(cache, store, manifests):
    fill(cache, store, manifests[:2])
    command = [sys.executable, "-c", USE, str(cache.folder), manifests[0].digest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in use\n"
        os.utime(cache.folder / f"{manifests[0].digest}.use", (0, 0))
        fill(cache, store, manifests[2:3])
        assert kept(cache, manifests) == [0, 2]
        other.stdin.close()
    fill(cache, store, manifests[3:])
    assert kept(cache, manifests) == [2, 3]


def test_files_that_are_links_to_the_store_take_no_space(settings, registry, three):
    cache = VersionCache(settings.cache_dir / "versions", max_bytes=0)
    for version in three:
        registry.materialize(version)
        registry.release(version)
    cache._evict()
    assert all((cache.folder / version.digest).is_dir() for version in three)


def test_a_version_of_an_earlier_kovar_without_a_note_of_use_goes_first(cache, store, manifests):
    fill(cache, store, manifests[:2])
    (cache.folder / f"{manifests[1].digest}.use").unlink()
    fill(cache, store, manifests[2:3])
    assert kept(cache, manifests) == [0, 2]


def test_a_cache_that_was_deleted_is_made_again(cache, store, manifests):
    fill(cache, store, manifests[:1])
    shutil.rmtree(cache.folder)
    fill(cache, store, manifests[:1])
    assert kept(cache, manifests) == [0]


def test_a_file_added_to_a_folder_below_makes_the_copy_anew(cache, store, manifests):
    fill(cache, store, manifests[:1])
    foreign = cache.folder / manifests[0].digest / "more" / "b.txt"
    foreign.parent.mkdir()
    foreign.write_text("not of this version")
    folder = cache.materialize(manifests[0].digest, manifests[0], store)
    assert [path.name for path in folder.rglob("*")] == ["a.txt"]
