"""Deleting versions, and collecting the blobs that nothing needs."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem

from kovar.errors import NotFoundError, RegistryError
from kovar.registry import Parent, Registry
from kovar.registry.artifacts import RemoteArtifacts, blob_path
from kovar.registry.garbage import files_of

AT_ONCE = timedelta(0)


def blobs_of(settings) -> set[str]:
    return {
        path.name for path in Path(settings.artifact_root, "sha256").rglob("*") if path.is_file()
    }


def age(settings, *, days: int) -> None:
    """Make every file of the store older."""
    for path in Path(settings.artifact_root).rglob("*"):
        if path.is_file():
            seen = path.stat()
            os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns - days * 86_400 * 10**9))


# Deleting


def test_a_deleted_version_is_hidden_and_says_who_deleted_it(registry, three):
    registry.delete("reviews", 2, reason="trained on the wrong data", by="ada")
    assert [version.number for version in registry.versions("reviews")] == [3, 1]
    assert registry.models()[0].num_versions == 2
    assert {version.number for version in registry.search("reviews")} == {1, 3}
    with pytest.raises(NotFoundError, match=r"reviews@2 was deleted by ada .*wrong data"):
        registry.version("reviews", 2)
    with pytest.raises(NotFoundError, match="was deleted"):
        registry.resolve(three[1].digest)


def test_a_version_that_an_alias_points_at_is_not_deleted(registry, three):
    registry.set_alias("reviews", "champion", 2)
    with pytest.raises(RegistryError, match="not deleted: champion points at it"):
        registry.delete("reviews", 2, reason="clean up")
    assert registry.version("reviews", 2) == three[1]


def test_a_parent_is_not_deleted_before_its_children(registry, folder, facts, version):
    born = {"parents": (Parent(role="base", digest=version.digest),)}
    registry.register("child", folder, facts=facts.model_copy(update=born))
    with pytest.raises(RegistryError, match="child@1 descends from it"):
        registry.delete("reviews", 1, reason="clean up")
    registry.delete("child", 1, reason="clean up")
    registry.delete("reviews", 1, reason="clean up")
    with pytest.raises(NotFoundError, match="was deleted"):
        registry.register("another", folder, facts=facts.model_copy(update=born))


def test_a_number_is_never_given_again(registry, folder, facts, three):
    registry.delete("reviews", 3, reason="clean up")
    assert (
        registry.register("reviews", folder, facts=facts.model_copy(update={"seed": 9})).number == 4
    )


def test_registering_a_deleted_version_again_brings_it_back(
    settings, registry, folder, facts, version
):
    registry.delete("reviews", 1, reason="clean up")
    registry.collect_garbage(grace=AT_ONCE)
    assert registry.register("reviews", folder, facts=facts) == version
    assert registry.verify() == []


def test_the_history_still_names_a_deleted_version(registry, three):
    registry.set_alias("reviews", "champion", 1)
    registry.set_alias("reviews", "champion", 2, expected=1)
    registry.delete("reviews", 1, reason="clean up")
    assert registry.history("reviews", "champion")[1].from_digest == three[0].digest
    with pytest.raises(NotFoundError, match="was deleted"):
        registry.rollback("reviews", reason="back")


# Collecting


def test_what_a_version_needs_is_never_collected(settings, registry, three):
    before = blobs_of(settings)
    assert registry.collect_garbage(grace=AT_ONCE).swept == ()
    assert blobs_of(settings) == before


def test_only_what_nothing_else_needs_goes_with_a_deleted_version(
    settings, registry, folder, facts
):
    registry.register("reviews", folder, facts=facts)
    shared = blobs_of(settings)
    (folder / "adapter.json").write_text('{"rank": 8}')
    registry.register("reviews", folder, facts=facts)
    own = blobs_of(settings) - shared
    registry.delete("reviews", 2, reason="clean up")
    assert {file.name for file in registry.collect_garbage(grace=AT_ONCE).swept} == own
    assert blobs_of(settings) == shared
    assert registry.verify() == []


def test_a_dry_run_removes_nothing(settings, registry, version):
    registry.delete("reviews", 1, reason="clean up")
    before = blobs_of(settings)
    found = registry.collect_garbage(grace=AT_ONCE, dry_run=True)
    assert {file.name for file in found.swept} == before == blobs_of(settings)
    assert found.swept_bytes == version.manifest.size_bytes


def test_a_young_blob_is_kept(settings, registry, folder, facts):
    stray = Path(settings.artifact_root) / blob_path("ab" * 32)
    stray.parent.mkdir(parents=True)
    stray.write_text("just stored by a registration that has not committed yet")
    found = registry.collect_garbage(grace=timedelta(hours=1))
    assert (found.swept, found.num_young) == ((), 1)
    age(settings, days=1)
    assert [file.name for file in registry.collect_garbage().swept] == ["ab" * 32]


def test_the_files_of_a_deleted_version_stay_for_the_grace_period(settings, version):
    noon, times = datetime.now(UTC), []
    with Registry.open(settings, clock=lambda: times[-1]) as registry:
        times.append(noon)
        registry.delete("reviews", 1, reason="clean up")
        age(settings, days=30)
        times.append(noon + timedelta(hours=23))
        assert registry.collect_garbage(grace=timedelta(hours=24)).swept == ()
        times.append(noon + timedelta(hours=25))
        assert len(registry.collect_garbage(grace=timedelta(hours=24)).swept) == 3


def test_an_upload_that_a_crash_left_is_collected(settings, registry, version):
    left = Path(settings.artifact_root, "incoming", "f" * 32)
    left.write_bytes(b"half a fi")
    assert registry.collect_garbage(grace=timedelta(hours=1)).swept == ()
    age(settings, days=1)
    assert [file.path for file in registry.collect_garbage(grace=timedelta(hours=1)).swept] == [
        f"incoming/{'f' * 32}"
    ]


def test_a_derived_artifact_keeps_its_blobs_as_long_as_its_version(
    settings, registry, version, tmp_path
):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "notes.txt").write_text("exported")
    registry.derive(version, tmp_path / "export", kind="onnx", runtime="onnxruntime")
    assert registry.collect_garbage(grace=AT_ONCE).swept == ()
    registry.delete("reviews", 1, reason="clean up")
    registry.collect_garbage(grace=AT_ONCE)
    assert blobs_of(settings) == set()


def test_garbage_in_a_remote_store_is_collected(tmp_path):
    path = tmp_path / "root" / blob_path("cd" * 32)
    path.parent.mkdir(parents=True)
    path.write_text("blob")
    files = files_of(RemoteArtifacts(LocalFileSystem(), str(tmp_path / "root")))
    (found,) = files.walk("sha256")
    assert (found.name, found.size_bytes) == ("cd" * 32, 4)
    assert files.holds(found.path, 4)
    assert not files.holds(found.path, 5)
    files.remove(found.path)
    files.remove(found.path)
    assert list(files.walk("sha256")) == list(files.walk("incoming")) == []


# Beside registrations


def test_a_blob_swept_between_its_upload_and_the_commit_is_stored_again(
    settings, registry, folder, facts
):
    """The first file is there already; it is swept while the second is being stored."""
    registry.register("reviews", folder, facts=facts)
    registry.delete("reviews", 1, reason="clean up")
    swept = []

    def sweep_once(what: str, done: int, total: int) -> None:
        if not swept and done == total:
            with Registry.open(settings) as other:
                swept.extend(other.collect_garbage(grace=AT_ONCE).swept)

    changed = facts.model_copy(update={"seed": 1})
    version = registry.register("reviews", folder, facts=changed, progress=sweep_once)
    assert len(swept) >= 2
    assert registry.verify(version) == []


def test_registrations_beside_a_sweeper_are_whole(settings, registry, folder, facts):
    done = threading.Event()

    def sweep() -> int:
        count = 0
        while not done.is_set():
            count += len(registry.collect_garbage(grace=AT_ONCE).swept)
        return count

    def churn(seed: int) -> None:
        model = f"model-{seed % 4}"
        version = registry.register(model, folder, facts=facts.model_copy(update={"seed": seed}))
        assert registry.verify(version) == []
        if seed % 2:
            registry.delete(model, version.number, reason="clean up")

    def attempt(seed: int) -> str:
        try:
            churn(seed)
        except RegistryError as refusal:
            return refusal.message
        return ""

    with ThreadPoolExecutor(5) as threads:
        sweeper = threads.submit(sweep)
        try:
            outcomes = list(threads.map(attempt, range(40), timeout=120))
        finally:
            done.set()
    # Without a grace period a registration may starve; it then says so.
    refused = [outcome for outcome in outcomes if outcome]
    print(f"\n40 registrations, {sweeper.result()} files swept, {len(refused)} gave up")
    assert all("garbage collection took the files" in message for message in refused)
    assert registry.verify() == []
