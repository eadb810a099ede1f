"""Finding models and versions: by name, by reference, a page at a time, by what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from kovar.errors import NotFoundError
from kovar.registry.reference import (
    DEFAULT_ALIAS,
    Reference,
    check_name,
    is_digest,
    parse_reference,
)
from kovar.registry.version import Model, Version, VersionSummary

if TYPE_CHECKING:
    from kovar.registry.catalog import Catalog
    from kovar.registry.database import Database
    from kovar.registry.gates import MetricBound
    from kovar.registry.lineage import Lineage
    from kovar.registry.moves import AliasBook
    from kovar.registry.queries import MadeOf, RowT

PAGE: Final = 50
"""Versions of a search, at most, unless another limit is given."""


class Browsing:
    """The part of `Registry` that finds models and versions."""

    _database: Database
    _catalog: Catalog
    _aliases: AliasBook

    def models(self, *, limit: int | None = None, after: str | None = None) -> tuple[Model, ...]:
        """Return models by name, all or a page.

        Args:
            limit: how many at most.
            after: name of the last model of the page before.
        """
        return self._catalog.list_models(limit=limit, after=after)

    def versions(
        self, model: str, *, limit: int | None = None, before: int | None = None
    ) -> tuple[Version, ...]:
        """Return versions of a model, newest first, all or a page.

        Args:
            model: name of the model.
            limit: how many at most.
            before: number of the last version of the page before.

        Raises:
            NotFoundError: no such model.
        """
        from kovar.registry.queries import to_versions

        return self._catalog.list_versions(model, made=to_versions, limit=limit, before=before)

    def version_summaries(
        self, model: str, *, limit: int = PAGE, before: int | None = None
    ) -> tuple[VersionSummary, ...]:
        """Return a page of `versions` as rows of a list: several times faster.

        Args:
            model: name of the model.
            limit: how many at most.
            before: number of the last version of the page before.

        Raises:
            NotFoundError: no such model.
        """
        from kovar.registry.queries import to_summaries

        return self._catalog.list_versions(model, made=to_summaries, limit=limit, before=before)

    def search(
        self,
        text: str = "",
        *,
        metrics: Sequence[MetricBound] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = PAGE,
        before: str | None = None,
    ) -> tuple[Version, ...]:
        """Return the versions of all models that match everything, a page at a time.

        Newest first; with a metric bound, the best of the first one first.

        Args:
            text: words of the model's name, run, sweep, tags, method, precision, base model, data
                or intended use; whole words in any case and order.
            metrics: bounds of metrics.
            tags: labels that a version must have.
            limit: how many at most.
            before: `name@number` of the last version of the page before.

        Raises:
            NotFoundError: `before` names no version.
        """
        from kovar.registry.queries import to_versions

        return self._search(to_versions, text, metrics, tags, limit, before)

    def search_summaries(
        self,
        text: str = "",
        *,
        metrics: Sequence[MetricBound] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = PAGE,
        before: str | None = None,
    ) -> tuple[VersionSummary, ...]:
        """Return a page of `search` as rows of a list: several times faster.

        Args:
            text: words that a version must have.
            metrics: bounds of metrics.
            tags: labels that a version must have.
            limit: how many at most.
            before: `name@number` of the last version of the page before.

        Raises:
            NotFoundError: `before` names no version.
        """
        from kovar.registry.queries import to_summaries

        return self._search(to_summaries, text, metrics, tags, limit, before)

    def _search(
        self,
        made: MadeOf[RowT],
        text: str,
        metrics: Sequence[MetricBound],
        tags: Mapping[str, str] | None,
        limit: int,
        before: str | None,
    ) -> tuple[RowT, ...]:
        from kovar.registry.search import search

        return search(
            self._database,
            made=made,
            text=text,
            metrics=metrics,
            tag_values=tags or {},
            limit=limit,
            before=before,
        )

    def lineage(self, version: Version) -> Lineage:
        """Return what a version descends from and what descends from it."""
        from kovar.registry.lineage import find_lineage

        return find_lineage(self._database, version)

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
        if not at and DEFAULT_ALIAS not in self._aliases.list_aliases(name):
            raise NotFoundError(
                f"model {name!r} has no {DEFAULT_ALIAS}, which its bare name stands for",
                hint=f"name a version, for example {name}@1, or point {DEFAULT_ALIAS} at one",
            )
        return self.version(name, ref if at else DEFAULT_ALIAS)
