"""The registry: register a version, find it, point an alias at it, get its files."""

from __future__ import annotations

import getpass
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from kovar.errors import DamagedArtifactError, NotFoundError, UserError
from kovar.registry.artifacts import ArtifactStore, not_as_manifest, open_artifacts
from kovar.registry.cache import VersionCache
from kovar.registry.formats import SourceFile, scan_folder
from kovar.registry.manifest import FileEntry, Manifest, VersionFacts
from kovar.registry.reference import (
    DEFAULT_ALIAS,
    Reference,
    check_name,
    is_digest,
    parse_reference,
)
from kovar.registry.signing import Signatures, VersionSignature
from kovar.registry.transfer import put_all
from kovar.registry.version import AliasMove, Model, Problem, Version
from kovar.settings import Settings

if TYPE_CHECKING:
    from kovar.registry.catalog import Catalog, Clock
    from kovar.registry.webhook import AliasWebhook

Progress = Callable[[str, int, int], None]
"""Told what is going on, the bytes done and the bytes in all."""

log = logging.getLogger(__name__)


def current_user() -> str:
    """Return who runs this process: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


class Registry:
    """Versions, aliases and artifacts; safe to use from many threads, processes and machines.

    Use `Registry.open`, and close it, or use it as a context manager.
    """

    def __init__(
        self,
        catalog: Catalog,
        artifacts: ArtifactStore,
        cache: VersionCache,
        *,
        close: Callable[[], None],
        signatures: Signatures | None = None,
        webhook: AliasWebhook | None = None,
    ) -> None:
        self._catalog = catalog
        self._artifacts = artifacts
        self._cache = cache
        self._close = close
        self._signatures = signatures or Signatures(artifacts)
        self._webhook = webhook
        self.on_alias_move: Callable[[AliasMove], None] | None = webhook
        """Told of each move of an alias after its commit; must neither wait nor raise."""

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
        # SQLAlchemy takes longer to import than everything else here together.
        from kovar.registry.catalog import Catalog, utc_now
        from kovar.registry.database import Database
        from kovar.registry.webhook import AliasWebhook

        artifacts = open_artifacts(settings.artifact_root)
        signatures = Signatures.of(settings, artifacts)
        webhook = AliasWebhook.of(settings)
        database = Database(settings.database_url)
        return cls(
            Catalog(database, clock=clock or utc_now),
            artifacts,
            VersionCache(settings.cache_dir / "versions", max_bytes=settings.cache_max_bytes),
            close=database.close,
            signatures=signatures,
            webhook=webhook,
        )

    def close(self) -> None:
        """Close the connections to the database; wait a bounded time for webhooks under way."""
        self._close()
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
        total = sum(file.size_bytes for file in files)
        entries = put_all(self._artifacts, files, progress=_counting(progress, total))
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
        )

    def models(self) -> tuple[Model, ...]:
        """Return all models, by name."""
        return self._catalog.list_models()

    def versions(self, model: str) -> tuple[Version, ...]:
        """Return all versions of a model, newest first.

        Raises:
            NotFoundError: no such model.
        """
        return self._catalog.list_versions(model)

    def version(self, model: str, ref: str | int) -> Version:
        """Return one version of a model.

        Args:
            model: name of the model.
            ref: its number, the first 8 or more digits of its digest, or an alias.

        Raises:
            NotFoundError: no such model, version or alias.
        """
        return self._catalog.find_version(model, parse_reference(ref))

    def resolve(self, reference: str) -> Version:
        """Return the version that a text names.

        Args:
            reference: `name@alias`, `name@number`, `name@digest`, `name` (its champion), or the
                digest alone, as it stands in a response.

        Raises:
            NotFoundError: no such model, version or alias.
            UserError: not a reference.
        """
        if is_digest(reference):
            return self._catalog.find_version(None, Reference(digest=reference))
        name, at, ref = reference.partition("@")
        check_name(name, field="model")
        if not at and DEFAULT_ALIAS not in self.aliases(name):
            raise NotFoundError(
                f"model {name!r} has no {DEFAULT_ALIAS}, which its bare name stands for",
                hint=f"name a version, for example {name}@1, or point {DEFAULT_ALIAS} at one",
            )
        return self.version(name, ref if at else DEFAULT_ALIAS)

    def aliases(self, model: str) -> Mapping[str, int]:
        """Return alias → number of the version that it points at.

        Raises:
            NotFoundError: no such model.
        """
        return self._catalog.list_aliases(model)

    def set_alias(
        self,
        model: str,
        alias: str,
        to: str | int,
        *,
        expected: str | int | None = None,
        force: bool = False,
        reason: str | None = None,
        by: str | None = None,
    ) -> AliasMove:
        """Point an alias at a version: a compare-and-swap, written into an append-only history.

        Args:
            model: name of the model.
            alias: name of the alias; created with its first move.
            to: the target: number, digest or alias.
            expected: number or digest that the alias points at now; None if it does not exist.
            force: move it wherever it points; needs a reason.
            reason: why, for the history.
            by: who moves it; this user by default.

        Returns:
            The move; the last one if the alias points at the target already.

        Raises:
            ConflictError: the alias points elsewhere than expected.
            NotFoundError: no such model or target.
            UserError: the name is not valid, or a forced move without a reason.
        """
        check_name(alias, field="alias")
        if force and not reason:
            raise UserError(
                "a forced move needs a reason",
                field="reason",
                hint="say why, or give the version that you expect the alias to point at",
            )
        move = self._catalog.move_alias(
            model,
            alias,
            parse_reference(to),
            expected=expected,
            force=force,
            reason=reason,
            by=by or current_user(),
        )
        self._announce(move)
        return move

    def history(self, model: str, alias: str) -> tuple[AliasMove, ...]:
        """Return every move of an alias, oldest first.

        Raises:
            NotFoundError: no such model or alias.
        """
        return self._catalog.list_moves(model, alias)

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
            for entry in manifest.files:
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
        self._signatures.check(version.manifest.digest, name=str(version))

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
        stored = put_all(self._artifacts, files, progress=_counting(progress, manifest.size_bytes))
        for entry, expected in zip_longest(stored, manifest.files):
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
        )

    def _announce(self, move: AliasMove) -> None:
        """Tell `on_alias_move` of a move that is committed: nothing can undo or fail it now."""
        if self.on_alias_move is None:
            return
        try:
            self.on_alias_move(move)
        except Exception:
            log.exception("the move of %s@%s stands; telling of it failed", move.model, move.alias)

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
