"""Artifacts on an S3 server: what is whole appears, what is torn or altered never counts."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from kovar.errors import DamagedArtifactError, RegistryError
from kovar.registry import Registry
from kovar.registry.artifacts import blob_path, open_artifacts
from kovar.registry.formats import SourceFile
from kovar.registry.transfer import fetch_all, put_all
from object_store import CREDENTIALS, running_object_store

SIZE = 20_000_000
DIE_HALFWAY = """
import os, signal, sys
from pathlib import Path
from kovar.registry.artifacts import open_artifacts
from kovar.registry.formats import SourceFile

path, sent = Path(sys.argv[2]), 0
def die_halfway(size):
    global sent
    sent += size
    if sent > 10_000_000:
        os.kill(os.getpid(), signal.SIGKILL)

source = SourceFile("model.safetensors", path, path.stat().st_size)
open_artifacts(sys.argv[1]).put(source, progress=die_halfway)
"""


@pytest.fixture(scope="module")
def server():
    with running_object_store() as server:
        yield server


@pytest.fixture
def root(server, monkeypatch) -> str:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return server.create_bucket(f"kovar-{uuid4()}")


@pytest.fixture
def store(root):
    return open_artifacts(root)


@pytest.fixture
def source(tmp_path) -> SourceFile:
    location = tmp_path / "weights"
    location.write_bytes(os.urandom(SIZE))
    return SourceFile("model.safetensors", location, SIZE)


def names_in(store) -> list[str]:
    from pyarrow.fs import FileSelector

    found = store.filesystem.get_file_info(
        FileSelector(store.base, recursive=True, allow_not_found=True)
    )
    return sorted(info.path.removeprefix(f"{store.base}/") for info in found if info.is_file)


def overwrite(store, entry, content: bytes) -> None:
    path = f"{store.base}/{blob_path(entry.sha256)}"
    with store.filesystem.open_output_stream(path) as stream:
        stream.write(content)


def sends(store, source) -> int:
    """Store a file; return how many pieces the progress was told of: 1 if it was there."""
    sizes: list[int] = []
    store.put(source, progress=sizes.append)
    assert sum(sizes) == source.size_bytes
    return len(sizes)


def test_a_blob_goes_there_and_back_and_nothing_else_is_left(store, source, tmp_path):
    entry = store.put(source)
    store.fetch(entry, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.location.read_bytes()
    assert names_in(store) == [blob_path(entry.sha256)]


def test_a_blob_that_is_there_is_not_sent_again(store, source):
    assert sends(store, source) == 3
    assert sends(store, source) == 1


def test_a_process_killed_halfway_leaves_no_torn_blob_and_the_next_one_succeeds(
    root, store, source
):
    command = [sys.executable, "-c", DIE_HALFWAY, root, str(source.location)]
    assert subprocess.run(command).returncode == -9
    assert names_in(store) == []
    store.check(store.put(source))


def test_an_upload_goes_on_where_a_killed_one_ended(store, source, folder):
    store.put(source)
    files = [source, SourceFile("config.json", folder / "config.json", 22)]
    sizes: list[int] = []
    put_all(store, files, progress=sizes.append)
    assert sorted(sizes) == [22, SIZE]


def test_a_file_that_changes_between_hashing_and_sending_leaves_no_blob(store, source):
    def change(size: int) -> None:
        with source.location.open("r+b") as file:
            file.seek(SIZE - 16)
            file.write(b"another content!")

    with pytest.raises(RegistryError, match="changed while it was being registered"):
        store.put(source, progress=change)
    assert names_in(store) == []


@pytest.mark.parametrize("content", [b"", bytes(SIZE - 1)])
def test_storing_again_mends_a_truncated_blob(store, source, content):
    entry = store.put(source)
    overwrite(store, entry, content)
    with pytest.raises(DamagedArtifactError, match="truncated"):
        store.check(entry)
    store.put(source)
    store.check(entry)


def test_storing_again_mends_a_blob_of_the_right_size_that_was_found_altered(store, source):
    entry = store.put(source)
    overwrite(store, entry, bytes(SIZE))
    with pytest.raises(DamagedArtifactError, match="hashes to"):
        store.check(entry)
    store.put(source)
    store.check(entry)
    assert names_in(store) == [blob_path(entry.sha256)]


def test_a_missing_blob_is_found(store, source, tmp_path):
    entry = store.put(source)
    store.filesystem.delete_file(f"{store.base}/{blob_path(entry.sha256)}")
    with pytest.raises(DamagedArtifactError, match="missing from the artifact store"):
        store.fetch(entry, tmp_path / "back")


def test_equal_content_from_many_threads_is_one_whole_blob(store, source):
    with ThreadPoolExecutor(4) as threads:
        (entry,) = {*threads.map(store.put, [source] * 4)}
    store.check(entry)
    assert names_in(store) == [blob_path(entry.sha256)]


def test_many_files_travel_at_once(store, tmp_path):
    files = []
    for number in range(20):
        (tmp_path / str(number)).write_text(str(number))
        files.append(SourceFile(f"part/{number}.txt", tmp_path / str(number), len(str(number))))
    entries = put_all(store, files)
    fetch_all(store, entries, tmp_path / "back")
    assert [entry.path for entry in entries] == [file.path for file in files]
    assert all((tmp_path / "back" / f.path).read_text() == f.location.name for f in files)


def test_small_objects_are_read_and_replaced(store):
    assert store.read_object("notes/a.json") is None
    store.write_object("notes/a.json", b"1")
    store.write_object("notes/a.json", b"2")
    assert store.read_object("notes/a.json") == b"2"


def test_a_whole_registry_works_over_s3(settings, root, folder, facts):
    remote = settings.model_copy(update={"artifact_root": root})
    with Registry.open(remote) as registry:
        version = registry.register("reviews", folder, facts=facts)
        local = registry.materialize(version)
        assert (local / "config.json").read_bytes() == (folder / "config.json").read_bytes()
        assert registry.verify() == []


def test_what_verify_finds_altered_on_the_server_is_mended_by_registering_again(
    settings, root, store, folder, facts
):
    with Registry.open(settings.model_copy(update={"artifact_root": root})) as registry:
        version = registry.register("reviews", folder, facts=facts)
        entry = version.manifest.files[1]
        overwrite(store, entry, bytes(entry.size_bytes))
        assert [problem.kind for problem in registry.verify()] == ["altered"]
        assert registry.register("reviews", folder, facts=facts) == version
        assert registry.verify() == []


def test_a_bucket_that_does_not_exist_is_named(root, source):
    store = open_artifacts(root.replace("s3://kovar-", "s3://absent-"))
    with pytest.raises(RegistryError, match=r"cannot store artifacts in absent-.*/models"):
        store.put(source)
