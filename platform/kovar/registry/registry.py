"""The registry: register a version, find it, point an alias at it, get its files."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from pydantic import JsonValue

from kovar.errors import DamagedArtifactError, RegistryError
from kovar.registry.artifacts import ArtifactStore, not_as_manifest, open_artifacts
from kovar.registry.browsing import Browsing
from kovar.registry.cache import VersionCache
from kovar.registry.formats import SourceFile, scan_folder
from kovar.registry.manifest import FileEntry, Manifest, VersionFacts
from kovar.registry.promotion import Promotion
from kovar.registry.reference import (
    check_name,
    parse_reference,
)
from kovar.registry.signing import Signatures, VersionSignature
from kovar.registry.transfer import put_all
from kovar.registry.user import current_user
from kovar.registry.version import GoldenResult, Problem, Version
from kovar.settings import Settings

if TYPE_CHECKING:
    from kovar.registry.attestation import Attestation
    from kovar.registry.database import Database
    from kovar.registry.derived import DerivedArtifact
    from kovar.registry.evaluations import EvaluationRecord, StoredEvaluation
    from kovar.registry.garbage import Sweep
    from kovar.registry.predictions import DatasetPredictions
    from kovar.registry.queries import Clock
    from kovar.registry.webhook import AliasWebhook

Progress = Callable[[str, int, int], None]
"""Told what is going on, the bytes done and the bytes in all."""

log = logging.getLogger(__name__)


MAX_TRIES: Final = 5
"""How often blobs are stored again after a garbage collection took them."""

GRACE: Final = timedelta(hours=24)
"""Longer than any upload lasts."""

ResultT = TypeVar("ResultT")


class Registry(Browsing, Promotion):
    """Versions, aliases and artifacts; safe to use from many threads, processes and machines.

    Use `Registry.open`, and close it, or use it as a context manager.
    """

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        cache: VersionCache,
        *,
        clock: Clock,
        signatures: Signatures | None = None,
        webhook: AliasWebhook | None = None,
    ) -> None:
        # SQLAlchemy takes longer to import than everything else here together.
        from kovar.registry.catalog import Catalog
        from kovar.registry.derived import DerivedShelf
        from kovar.registry.garbage import files_of
        from kovar.registry.moves import AliasBook

        self._database = database
        self._catalog = Catalog(database, clock=clock)
        self._aliases = AliasBook(database, clock=clock)
        self._derived = DerivedShelf(database, clock=clock)
        self._artifacts = artifacts
        self._files = files_of(artifacts)
        self._cache = cache
        self._clock = clock
        self._signatures = signatures or Signatures(artifacts)
        self._webhook = webhook
        self.on_alias_move = webhook

    @classmethod
    def open(cls, settings: Settings, *, clock: Clock | None = None) -> Registry:
        """Open the registry; create or migrate its database when needed.

        Args:
            settings: where the database, the artifacts and the cache are.
            clock: tells the time of changes; this machine's by default.

        Raises:
            NewerSchemaError: a newer Kovar wrote the database.
            SettingsError: a place is malformed or not writable.
            RegistryError: the database cannot be reached.
        """
        from kovar.registry.database import Database
        from kovar.registry.queries import utc_now
        from kovar.registry.webhook import AliasWebhook

        artifacts = open_artifacts(settings.artifact_root)
        return cls(
            Database(settings.database_url),
            artifacts,
            VersionCache(settings.cache_dir / "versions", max_bytes=settings.cache_max_bytes),
            clock=clock or utc_now,
            signatures=Signatures.of(settings, artifacts),
            webhook=AliasWebhook.of(settings),
        )

    def close(self) -> None:
        """Close the connections to the database; wait a bounded time for webhooks under way."""
        self._database.close()
        if self._webhook:
            self._webhook.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def register(
        self,
        model: str,
        folder: Path,
        *,
        facts: VersionFacts,
        created_by: str | None = None,
        run: str | None = None,
        sweep: str | None = None,
        tags: Mapping[str, str] | None = None,
        run_facts: Mapping[str, JsonValue] | None = None,
        progress: Progress | None = None,
    ) -> Version:
        """Make the files of a folder a version of a model; the whole version or nothing.

        All files are checked, then stored; the commit of the metadata comes last. Content that
        the model has already (equal facts and files) returns the version that exists.

        Args:
            model: name of the model; created with its first version.
            folder: the files, and nothing else.
            facts: what the version is made of.
            created_by: who registers it; this user by default.
            run: id of the run that made it.
            sweep: id of the sweep that the run belongs to.
            tags: free labels, for searching.
            run_facts: what an identical run would not repeat: seconds, hardware, cost.
            progress: told of the bytes stored.

        Raises:
            UserError: the name is not valid.
            NotFoundError: the folder is missing or empty.
            UnsafeArtifactError: a file that may not enter, or not what its name says.
            RegistryError: a file changed meanwhile, or something could not be written.
        """
        check_name(model, field="model")
        files = scan_folder(folder)

        def commit(entries: list[FileEntry]) -> Version:
            manifest = Manifest.of(facts, entries)
            self._signatures.sign(manifest.digest)
            return self._catalog.add_version(
                model,
                manifest,
                created_by=created_by or current_user(),
                run=run,
                sweep=sweep,
                tag_values=tags or {},
                run_facts=run_facts or {},
                absent=self._absent,
            )

        return self._store(files, commit, progress)

    def _store(
        self,
        files: Sequence[SourceFile],
        commit: Callable[[list[FileEntry]], ResultT],
        progress: Progress | None,
    ) -> ResultT:
        """Store files, then commit what refers to them; again where a sweep came in between."""
        from kovar.registry.catalog import SweptError

        total = sum(file.size_bytes for file in files)
        for _ in range(MAX_TRIES):
            entries = put_all(self._artifacts, files, progress=_counting(progress, total))
            try:
                return commit(entries)
            except SweptError as swept:
                log.warning("%s while they were registered: storing them again", swept.message)
        raise RegistryError(
            f"garbage collection took the files {MAX_TRIES} times before they were registered",
            hint="give it a grace period that is longer than an upload",
        )

    def _absent(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        from kovar.registry.garbage import absent

        return absent(self._files, entries)

    def derive(
        self,
        version: Version,
        folder: Path,
        *,
        kind: str,
        runtime: str,
        chip: str = "any",
        settings: Mapping[str, JsonValue] | None = None,
        golden: GoldenResult | None = None,
        created_by: str | None = None,
        progress: Progress | None = None,
    ) -> DerivedArtifact:
        """Hang the files of a folder on a version, under a digest of their own.

        Args:
            version: what they were made of; it stays as it is.
            folder: the files, and nothing else.
            kind: what they are: onnx, quantized, compiled, …
            runtime: what executes them.
            chip: the chip that they are made for.
            settings: how they were made.
            golden: whether the runtime reproduced the version's golden examples.
            created_by: who made them; this user by default.
            progress: told of the bytes stored.

        Raises:
            NotFoundError: no such version, or the folder is missing or empty.
            UnsafeArtifactError: a file that may not enter, or not what its name says.
            RegistryError: a file changed meanwhile, or something could not be written.
        """
        from kovar.registry.attestation import AttestationStatement, installed_makers
        from kovar.registry.derived import DerivedManifest

        by = created_by or current_user()

        def commit(entries: list[FileEntry]) -> DerivedArtifact:
            manifest = DerivedManifest(
                version=version.digest,
                kind=kind,
                runtime=runtime,
                chip=chip,
                settings=dict(settings or {}),
                files=tuple(sorted(entries, key=lambda entry: entry.path)),
            )
            self._signatures.attest(
                AttestationStatement(
                    manifest=manifest, made_by=by, made_with=installed_makers(), golden=golden
                )
            )
            return self._derived.add(version, manifest, golden=golden, by=by, absent=self._absent)

        return self._store(scan_folder(folder), commit, progress)

    def derived(self, version: Version) -> tuple[DerivedArtifact, ...]:
        """Return what was derived from a version, oldest first.

        Raises:
            NotFoundError: no such version.
        """
        return self._derived.list(version)

    def add_evaluation(
        self,
        version: Version,
        record: EvaluationRecord,
        predictions: DatasetPredictions | None,
        *,
        created_by: str | None = None,
    ) -> StoredEvaluation:
        """Keep what a version did on a further data set; equal findings are stored once.

        Args:
            version: what was evaluated; it stays as it is.
            record: what was found.
            predictions: the label of every row; None where rows have no single label.
            created_by: who evaluated; this user by default.

        Raises:
            UserError: the data set's name is not valid, or that of metrics in the manifest.
            NotFoundError: no such version.
        """
        from kovar.registry.evaluations import (
            EVALUATION_KIND,
            StoredEvaluation,
            check_dataset,
            write_evaluation,
        )

        check_dataset(version, record.dataset)
        with tempfile.TemporaryDirectory() as folder:
            write_evaluation(record, predictions, Path(folder))
            artifact = self.derive(
                version,
                Path(folder),
                kind=EVALUATION_KIND,
                runtime=record.runtime,
                chip=record.chip,
                settings={"dataset": record.dataset, "precision": record.precision},
                created_by=created_by,
            )
        return StoredEvaluation(
            digest=artifact.digest,
            record=record,
            created_at=artifact.created_at,
            created_by=artifact.created_by,
        )

    def evaluations(self, version: Version) -> dict[str, StoredEvaluation]:
        """Return data set → the newest evaluation of a version on it, without its own run's.

        Raises:
            NotFoundError: no such version.
            DamagedArtifactError: a blob is missing, truncated or altered.
        """
        from kovar.registry.evaluations import read_evaluations

        return read_evaluations(self._artifacts, self._derived.list(version))

    def note_golden(self, version: Version, result: GoldenResult, *, by: str | None = None) -> None:
        """Note that a runtime was checked against the golden examples of a version.

        Raises:
            NotFoundError: no such version.
        """
        self._derived.note(version, result, by=by or current_user())

    def materialize(
        self, version: Version, *, cache_dir: Path | None = None, rehash: bool = False
    ) -> Path:
        """Return a local folder with exactly the verified files of a version; do not change them.

        Args:
            version: the version.
            cache_dir: where to keep it; the settings' cache by default.
            rehash: read and hash the files even if nothing touched them since they were verified.

        Raises:
            DamagedArtifactError: a blob is missing, truncated or altered.
            UntrustedVersionError: keys are trusted, and none of them signed the version.
            SettingsError: the cache cannot be written.
        """
        self.check_signature(version)
        cache = VersionCache(cache_dir / "versions") if cache_dir else self._cache
        return cache.materialize(version.digest, version.manifest, self._artifacts, rehash=rehash)

    def read_file(self, version: Version, path: str) -> bytes | None:
        """Return the verified content of one small file of a version; None if it has none such.

        Raises:
            DamagedArtifactError: the blob is missing, truncated or altered.
        """
        entry = next((one for one in version.manifest.files if one.path == path), None)
        if entry is None:
            return None
        with tempfile.TemporaryDirectory(prefix="kovar-") as folder:
            self._artifacts.fetch(entry, Path(folder) / "file")
            return (Path(folder) / "file").read_bytes()

    def materialize_derived(self, artifact: DerivedArtifact, *, rehash: bool = False) -> Path:
        """Return a local folder with exactly the verified files of a derived artifact.

        Args:
            artifact: the artifact.
            rehash: read and hash the files even if nothing touched them since they were verified.

        Raises:
            DamagedArtifactError: a blob is missing, truncated or altered.
            UntrustedVersionError: keys are trusted, and none of them attests the artifact.
            SettingsError: the cache cannot be written.
        """
        self.check_derived(artifact)
        # The cache looks at the files of a manifest alone, and both kinds have them.
        manifest = cast("Manifest", artifact.manifest)
        return self._cache.materialize(artifact.digest, manifest, self._artifacts, rehash=rehash)

    def check_files(self, artifact: DerivedArtifact) -> None:
        """Read and hash the blobs of a derived artifact, in the artifact store.

        Raises:
            DamagedArtifactError: a blob is missing, truncated or altered.
        """
        for entry in artifact.manifest.files:
            self._artifacts.check(entry)

    def delete(self, model: str, ref: str | int, *, reason: str, by: str | None = None) -> Version:
        """Delete a version: hidden at once, its files collected after the grace period.

        Its row stays, because the history names it; registering the same content again brings it
        back under its number.

        Args:
            model: name of the model.
            ref: its number or digest.
            reason: why.
            by: who deletes it; this user by default.

        Raises:
            RegistryError: an alias points at it, or another version descends from it.
            NotFoundError: no such version.
        """
        by = by or current_user()
        return self._catalog.delete_version(model, parse_reference(ref), reason=reason, by=by)

    def collect_garbage(self, *, grace: timedelta = GRACE, dry_run: bool = False) -> Sweep:
        """Remove the blobs that no version needs; safe beside registrations at the same time.

        Args:
            grace: age from which they go; also how long the files of a deleted version stay.
            dry_run: only say what would go.

        Raises:
            RegistryError: the artifact store or the database failed.
        """
        from kovar.registry.garbage import sweep

        return sweep(self._database, self._files, grace=grace, dry_run=dry_run, clock=self._clock)

    def verify(self, version: Version | None = None) -> list[Problem]:
        """Read and hash every blob of one version, or of all; return what is wrong, by file."""
        problems: list[Problem] = []
        checked: dict[str, DamagedArtifactError | None] = {}
        for model, number in (
            [(version.model, version.number)] if version else self._catalog.list_numbers()
        ):
            try:
                manifest = self.version(model, number).manifest
            except DamagedArtifactError as damage:
                problems.append(_problem(model, number, damage))
                continue
            entries = list(manifest.files)
            try:
                derived = self._derived.list(self.version(model, number))
            except DamagedArtifactError as damage:
                problems.append(_problem(model, number, damage))
                derived = ()
            for artifact in derived:
                prefix = f"derived/{artifact.digest[:12]}"
                entries += [
                    file.model_copy(update={"path": f"{prefix}/{file.path}"})
                    for file in artifact.manifest.files
                ]
            for entry in entries:
                if entry.sha256 not in checked:
                    checked[entry.sha256] = self._damage(entry)
                if found := checked[entry.sha256]:
                    problems.append(_problem(model, number, found, path=entry.path))
        return problems

    def release(self, version: Version) -> None:
        """Let the local copy of a version be evicted; this process no longer reads it."""
        self._cache.release(version.digest)

    def check_signature(self, version: Version) -> None:
        """Refuse a version that no trusted key signed; accept all if no key is configured.

        Raises:
            UntrustedVersionError: unsigned, signed by others only, or wrongly signed.
        """
        if self._signatures.required:
            self._signatures.check(version.manifest.digest, name=str(version))

    def check_derived(self, artifact: DerivedArtifact) -> None:
        """Refuse a derived artifact that no trusted key attests; accept all without such keys.

        Raises:
            UntrustedVersionError: not attested, attested by others only, or wrongly signed.
        """
        if self._signatures.required:
            manifest = artifact.manifest
            name = f"the {manifest.kind} artifact of {artifact.model}@{artifact.number}"
            self._signatures.check_derived(manifest.digest, name=name)

    def check_can_attest(self, *, name: str) -> None:
        """Refuse to derive what this machine would then refuse to load.

        Args:
            name: what would be derived, for the message.

        Raises:
            UntrustedVersionError: keys are trusted, and the one that signs here is none of them.
        """
        self._signatures.check_can_attest(name=name)

    def attestations(self, artifact: DerivedArtifact) -> tuple[Attestation, ...]:
        """Return the signed statements about a derived artifact, whoever made them."""
        return self._signatures.attestations(artifact.manifest.digest)

    def signatures(self, version: Version) -> tuple[VersionSignature, ...]:
        """Return the signatures of a version, whoever made them."""
        return self._signatures.list(version.digest)

    def adopt(
        self,
        model: str,
        manifest: Manifest,
        files: Sequence[SourceFile],
        *,
        signatures: Sequence[VersionSignature] = (),
        created_by: str | None = None,
        run: str | None = None,
        sweep: str | None = None,
        tags: Mapping[str, str] | None = None,
        run_facts: Mapping[str, JsonValue] | None = None,
        progress: Progress | None = None,
    ) -> Version:
        """Make files the version that a manifest from elsewhere describes; its digest stays.

        Args:
            model: name of the model; created with its first version.
            manifest: what the version is.
            files: its files, checked.
            signatures: signatures that came with it.
            created_by: who registers it; this user by default.
            run: id of the run that made it.
            sweep: id of the sweep that the run belongs to.
            tags: free labels.
            run_facts: what an identical run would not repeat.
            progress: told of the bytes stored.

        Raises:
            DamagedArtifactError: a file is not as the manifest says.
            UntrustedVersionError: keys are trusted, and none of them signed the version.
            UserError: the name is not valid.
        """
        check_name(model, field="model")
        self._signatures.check(manifest.digest, name=model, extra=signatures)

        def commit(entries: list[FileEntry]) -> Version:
            for entry, expected in zip_longest(entries, manifest.files):
                if entry != expected:
                    raise not_as_manifest((expected or entry).path, "another content")
            for signature in signatures:
                if signature.digest == manifest.digest:
                    self._signatures.add(signature)
            self._signatures.sign(manifest.digest)
            return self._catalog.add_version(
                model,
                manifest,
                created_by=created_by or current_user(),
                run=run,
                sweep=sweep,
                tag_values=tags or {},
                run_facts=run_facts or {},
                absent=self._absent,
            )

        return self._store(files, commit, progress)

    def _damage(self, entry: FileEntry) -> DamagedArtifactError | None:
        try:
            self._artifacts.check(entry)
        except DamagedArtifactError as damage:
            return damage
        return None


def _counting(progress: Progress | None, total: int) -> Callable[[int], None]:
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        if progress:
            progress("registering", done, total)

    return advance


def _problem(model: str, number: int, damage: DamagedArtifactError, *, path: str = "") -> Problem:
    return Problem(
        model=model,
        number=number,
        path=path,
        sha256=damage.context["sha256"],
        kind=damage.context["kind"],
        message=damage.context["what"],
    )
