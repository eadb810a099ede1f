"""A version as a Hugging Face folder: `from_pretrained` loads it, and it comes back as itself."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any, Final

from kovar.errors import NotFoundError, UserError
from kovar.registry.artifacts import hash_file, not_as_manifest
from kovar.registry.card import card
from kovar.registry.exchange.envelope import MANIFEST_FILE, MAX_BYTES, Envelope
from kovar.registry.formats import SourceFile, check_content, open_regular
from kovar.registry.manifest import EnvironmentFacts, Manifest, Signature, VersionFacts
from kovar.registry.registry import Progress, Registry
from kovar.registry.version import Version

CARD_FILE: Final = "README.md"
_PRECISIONS: Final = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}

log = logging.getLogger(__name__)


def export_folder(registry: Registry, version: Version, target: Path) -> Path:
    """Write the files of a version, its card and its manifest into a new folder.

    The folder appears when it is whole.

    Args:
        registry: where the version is.
        version: the version.
        target: the folder; must not exist.

    Raises:
        UserError: the folder exists or cannot be written.
        DamagedArtifactError: a blob is missing, truncated or altered.
    """
    refuse_existing(target)
    envelope = Envelope.of(registry, version)
    source = registry.materialize(version, rehash=True)
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        fresh.mkdir(parents=True)
        for entry in version.manifest.files:
            copy = fresh / entry.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / entry.path, copy)
            if hash_file(copy) != entry.sha256:
                raise not_as_manifest(entry.path, "it changed while it was copied")
        if not (fresh / CARD_FILE).exists():
            (fresh / CARD_FILE).write_text(_front_matter(version) + card(version), "utf-8")
        (fresh / MANIFEST_FILE).write_bytes(envelope.to_bytes())
        fresh.rename(target)
    except OSError as problem:
        raise _unwritable(target, problem) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def import_folder(
    registry: Registry, folder: Path, *, model: str | None = None, progress: Progress | None = None
) -> Version:
    """Register a folder that Kovar exported, as the version that it was.

    A folder without a manifest of Kovar is registered as a new version with the facts that its
    `config.json` states; equal folders give equal versions.

    Args:
        registry: where to.
        folder: the folder.
        model: name of the model; needed if the folder has no manifest.
        progress: told of the bytes stored.

    Raises:
        DamagedArtifactError: a file was altered, is missing, or does not belong to the version.
        UnsafeArtifactError: a file that may not enter the registry.
        NotFoundError: no such folder.
        UserError: no name for the model.
    """
    if not folder.is_dir():
        raise NotFoundError("no such folder to import", got=str(folder))
    if (folder / MANIFEST_FILE).exists():
        return _import_exported(registry, folder, model=model, progress=progress)
    if model is None:
        raise UserError(
            f"the folder has no {MANIFEST_FILE}, so it does not say which model it is",
            file=folder,
            hint="name it: --model NAME",
        )
    with tempfile.TemporaryDirectory(prefix="kovar-import-") as temporary:
        staged = Path(temporary) / "files"
        # What Git and download tools leave beside a model begins with a dot.
        shutil.copytree(folder, staged, symlinks=True, ignore=shutil.ignore_patterns(".*"))
        return registry.register(model, staged, facts=_facts_of(staged), progress=progress)


def _import_exported(
    registry: Registry, folder: Path, *, model: str | None, progress: Progress | None
) -> Version:
    with open_regular(folder / MANIFEST_FILE) as stream:
        envelope = Envelope.parse(stream.read(MAX_BYTES))
    known = {file.path for file in envelope.manifest.files} | {MANIFEST_FILE, CARD_FILE}
    found = [
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
    ]
    for path in sorted(found):
        if path not in known:
            raise not_as_manifest(path, "a file that is not in the manifest")
    files = check_files(folder, envelope.manifest)
    return envelope.register(registry, files, model=model, progress=progress)


def check_files(folder: Path, manifest: Manifest) -> list[SourceFile]:
    """Compare the files in a folder with a manifest; return them as they are registered.

    Raises:
        DamagedArtifactError: a file is missing or altered.
        UnsafeArtifactError: a file that may not enter the registry.
    """
    files = []
    for entry in manifest.files:
        location = folder / entry.path
        if not location.exists():
            raise not_as_manifest(entry.path, "missing")
        with open_regular(location) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != entry.size_bytes:
                raise not_as_manifest(entry.path, f"{size:,} bytes, not {entry.size_bytes:,}")
            check_content(entry.path, stream, size)
        if hash_file(location) != entry.sha256:
            raise not_as_manifest(entry.path, "another content")
        files.append(SourceFile(entry.path, location, entry.size_bytes))
    return files


def refuse_existing(target: Path) -> None:
    """Raise UserError if there is something at the place of an export."""
    if target.exists() or target.is_symlink():
        raise UserError("something is there already", file=target, hint="choose a new path")


def _facts_of(folder: Path) -> VersionFacts:
    config = _read_json(folder / "config.json")
    names = config.get("id2label") or {}
    labels = tuple(str(names[key]) for key in sorted(names, key=int)) if names else ()
    kind = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    precision = _PRECISIONS.get(kind, kind)
    log.info("imported without a manifest: precision %s of config.json, no metrics", precision)
    return VersionFacts(
        method="import",
        precision=precision,
        seed=0,
        spec={},
        metrics={},
        environment=EnvironmentFacts(python="unknown", packages={}, chip="unknown"),
        signature=Signature(task="text-classification" if labels else "unknown", labels=labels),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UserError(
            f"not a Hugging Face folder: config.json cannot be read ({problem})", file=path
        ) from None
    if not isinstance(found, dict):
        raise UserError("config.json holds no object", file=path)
    return found


def _front_matter(version: Version) -> str:
    """Return the YAML block with which the Hub's cards begin."""
    facts = {
        "library_name": "transformers",
        "pipeline_tag": version.manifest.signature.task,
        "tags": ["kovar"],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in facts.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def _unwritable(target: Path, problem: OSError) -> UserError:
    return UserError(f"cannot write the export: {problem.strerror or problem}", file=target)
