"""The blobs: content-addressed, written once, verified at every read. Both kinds of store."""

import os

import pytest
from pyarrow.fs import LocalFileSystem

from kovar.errors import DamagedArtifactError, RegistryError, SettingsError, UnsafeArtifactError
from kovar.registry.artifacts import LocalArtifacts, RemoteArtifacts, blob_path, open_artifacts
from kovar.registry.formats import SourceFile
from kovar.registry.transfer import put_all


@pytest.fixture(params=["local", "remote"])
def store(request, tmp_path):
    root = tmp_path / "artifacts"
    return (
        LocalArtifacts(root)
        if request.param == "local"
        else RemoteArtifacts(LocalFileSystem(), str(root))
    )


@pytest.fixture
def source(tmp_path) -> SourceFile:
    location = tmp_path / "weights"
    location.write_bytes(os.urandom(3_000_000))
    return SourceFile("model.safetensors", location, 3_000_000)


@pytest.fixture
def entry(store, source):
    return store.put(source)


@pytest.fixture
def blob(tmp_path, entry):
    return tmp_path / "artifacts" / blob_path(entry.sha256)


def spoil(blob, content: bytes) -> None:
    blob.chmod(0o644)
    blob.write_bytes(content)


def test_a_blob_is_stored_under_its_digest_and_nothing_is_left_over(tmp_path, blob, source):
    assert blob.read_bytes() == source.location.read_bytes()
    assert list((tmp_path / "artifacts" / "incoming").iterdir()) == []


def test_the_same_content_is_stored_once(store, source, entry, blob):
    before = blob.stat()
    again = store.put(SourceFile("copy.safetensors", source.location, source.size_bytes))
    assert again.sha256 == entry.sha256
    assert (blob.stat().st_ino, blob.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_progress_adds_up_to_the_size(store, source):
    sizes = []
    store.put(source, progress=sizes.append)
    assert sum(sizes) == source.size_bytes


def test_fetch_gives_the_content(store, source, entry, tmp_path):
    store.fetch(entry, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == source.location.read_bytes()


@pytest.mark.parametrize("bit", [0, 12_345_678, 23_999_999])
def test_one_flipped_bit_is_found(store, entry, blob, tmp_path, bit):
    content = bytearray(blob.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    spoil(blob, bytes(content))
    with pytest.raises(DamagedArtifactError, match=r"model\.safetensors .*hashes to") as caught:
        store.fetch(entry, tmp_path / "out")
    assert caught.value.context["kind"] == "altered"


def test_a_truncated_blob_is_found(store, entry, blob):
    spoil(blob, blob.read_bytes()[:1000])
    with pytest.raises(DamagedArtifactError, match=r"truncated to 1000 B of 2\.9 MiB"):
        store.check(entry)


def test_a_missing_blob_is_found(store, entry, blob, tmp_path):
    blob.unlink()
    with pytest.raises(DamagedArtifactError, match="missing from the artifact store"):
        store.fetch(entry, tmp_path / "out")


def test_storing_the_content_again_mends_a_truncated_or_missing_blob(store, source, entry, blob):
    spoil(blob, b"")
    store.put(source)
    store.check(entry)
    blob.unlink()
    store.put(source)
    store.check(entry)


def test_a_local_store_mends_an_altered_blob_too(tmp_path, source):
    store = LocalArtifacts(tmp_path / "artifacts")
    entry = store.put(source)
    spoil(store.root / blob_path(entry.sha256), bytes(source.size_bytes))
    store.put(source)
    store.check(entry)


def test_a_file_that_grows_while_it_is_read_is_refused(store, source):
    listed_before = SourceFile(source.path, source.location, source.size_bytes - 1)
    with pytest.raises(RegistryError, match="changed while it was being registered"):
        store.put(listed_before)


def test_a_local_blob_is_linked_not_copied_and_cannot_be_written(tmp_path, source):
    store = LocalArtifacts(tmp_path / "artifacts")
    entry = store.put(source)
    store.fetch(entry, tmp_path / "out")
    assert (tmp_path / "out").samefile(store.root / blob_path(entry.sha256))
    assert (tmp_path / "out").stat().st_mode & 0o222 == 0


def test_a_store_that_cannot_be_written_says_where(tmp_path, source):
    (tmp_path / "artifacts").write_text("a file in the way")
    with pytest.raises(SettingsError, match="artifact_root: cannot write here"):
        LocalArtifacts(tmp_path / "artifacts").put(source)


def test_a_url_of_an_unknown_scheme_is_refused():
    with pytest.raises(SettingsError, match="s3://"):
        open_artifacts("carrier-pigeon://loft/models")


@pytest.mark.parametrize(
    ("url", "kind", "base"),
    [
        ("s3://models?endpoint_override=minio:9000&scheme=http&region=eu-west-1", "s3", "models"),
        ("s3://models/kovar/?region=eu-west-1", "s3", "models/kovar"),
        ("gs://models/kovar", "gcs", "models/kovar"),
        ("gs://anonymous@models/kovar?endpoint_override=localhost:4443", "gcs", "models/kovar"),
    ],
)
def test_a_url_chooses_the_file_system(url, kind, base):
    store = open_artifacts(url)
    assert isinstance(store, RemoteArtifacts)
    assert (store.filesystem.type_name, store.base) == (kind, base)


def test_hdfs_without_its_native_library_says_what_to_set():
    with pytest.raises(SettingsError, match=r"(?s)hdfs://.*JAVA_HOME, HADOOP_HOME"):
        open_artifacts("hdfs://namenode:8020/models")


@pytest.mark.parametrize("url", ["s3:///models", "s3://", "gs://models?colour=blue"])
def test_a_malformed_url_is_refused(url):
    with pytest.raises(SettingsError, match="artifact_root"):
        open_artifacts(url)


def test_after_a_failure_no_further_file_is_begun(store, source, tmp_path):
    missing = SourceFile("absent.txt", tmp_path / "absent", 1)
    begun: list[int] = []
    with pytest.raises(UnsafeArtifactError, match="absent"):
        put_all(store, [missing, *[source] * 50], progress=begun.append, num_threads=1)
    assert len(begun) < 50


def test_a_file_url_is_a_folder(tmp_path):
    assert open_artifacts(f"file://{tmp_path}").root == tmp_path
