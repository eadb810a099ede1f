"""Which adapters an application serves: resolved when it is built, as its other versions are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from kovar.errors import NotFoundError, SpecError
from kovar.inference import adapter_base
from kovar.models import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from kovar.serving.adapters.settings import AdapterSettings, ServedAdapter
from kovar.serving.spec import ServingSpec

if TYPE_CHECKING:
    from kovar.registry import Registry, Version

MAX_ADAPTERS: Final = 1_000
CLASSIFIES: Final = frozenset({"text-classification", "multilabel-classification"})


@dataclass(frozen=True)
class BoundAdapters:
    """The adapters of an application.

    Attributes:
        base: what all of them were trained on.
        versions: they themselves; of several of a model the first one answers where none is named.
    """

    base: Version
    versions: tuple[Version, ...]

    @property
    def largest_bytes(self) -> int:
        """Size of the largest adapter's weights."""
        sizes = [
            file.size_bytes
            for version in self.versions
            for file in version.manifest.files
            if file.path == ADAPTER_WEIGHTS
        ]
        return max(sizes, default=0)


def bind_adapters(
    spec: ServingSpec, registry: Registry, *, served: frozenset[str] = frozenset()
) -> BoundAdapters | None:
    """Resolve the adapters of an application; None where it has none.

    What a pattern finds is left out where it is no adapter of the base that classifies texts, has
    not the version, or is served already; what is named must be all that.

    Args:
        spec: the application.
        registry: where the versions are.
        served: digests of versions that it serves anyway.

    Raises:
        NotFoundError: the registry has no such model, version or alias, or a pattern finds nothing.
        SpecError: a version is no adapter of the base.
        UntrustedVersionError: keys are trusted, and none of them signed a version.
    """
    settings = spec.adapters
    if settings is None:
        return None
    base = _base(spec, settings, registry)
    found: dict[str, Version] = {}
    for index, wanted in enumerate(settings.models):
        field = f"adapters.models[{index}]"
        if wanted.is_pattern:
            matching = list(_matching(wanted, base, registry))
            if not matching:
                raise NotFoundError(
                    f"no model of this name has a version {wanted.version!r} that is an adapter "
                    f"of {base}",
                    field=f"{field}.model",
                    got=wanted.model,
                )
        else:
            matching = [_named(wanted, base, registry, field, served | found.keys())]
        found |= {one.digest: one for one in matching if one.digest not in served}
    for version in found.values():
        registry.check_signature(version)
    _check(spec, settings, tuple(found.values()))
    registry.check_signature(base)
    return BoundAdapters(base, tuple(found.values()))


def _base(spec: ServingSpec, settings: AdapterSettings, registry: Registry) -> Version:
    if settings.base is not None:
        return registry.resolve(settings.base)
    first = registry.version(spec.model, spec.version)
    base = adapter_base(registry, first)
    if base is None:
        raise SpecError(
            f"{first} is no adapter, so it does not tell the base",
            field="adapters.base",
            hint="name the version that the adapters were trained on: base: NAME@VERSION",
        )
    return base


def _matching(wanted: ServedAdapter, base: Version, registry: Registry) -> Iterator[Version]:
    for model in registry.models():
        if not fnmatchcase(model.name, wanted.model):
            continue
        try:
            version = registry.version(model.name, wanted.version)
        except NotFoundError:
            continue
        if _why_not(version, base) is None:
            yield version


def _named(
    wanted: ServedAdapter,
    base: Version,
    registry: Registry,
    field: str,
    served: frozenset[str],
) -> Version:
    version = registry.version(wanted.model, wanted.version)
    why_not = _why_not(version, base)
    if why_not is not None:
        raise SpecError(
            f"{why_not}: an adapter of {base} is needed", field=f"{field}.model", got=str(version)
        )
    if version.digest in served:
        raise SpecError(
            "this version is served already", field=f"{field}.version", got=str(version)
        )
    return version


def _why_not(version: Version, base: Version) -> str | None:
    """Return why a version is not an adapter of the base that classifies texts."""
    manifest = version.manifest
    if all(file.path != ADAPTER_CONFIG for file in manifest.files):
        return "this version is a whole model"
    if all((one.role, one.digest) != ("base", base.digest) for one in manifest.parents):
        return "this version is an adapter of another base"
    if manifest.signature.task not in CLASSIFIES or not manifest.signature.labels:
        return "this version does not classify texts"
    return None


def _check(spec: ServingSpec, settings: AdapterSettings, versions: tuple[Version, ...]) -> None:
    if len(versions) > MAX_ADAPTERS:
        raise SpecError(
            "an application may have this many adapters",
            field="adapters.models",
            got=len(versions),
            allowed=f"at most {MAX_ADAPTERS:,}",
            hint="name fewer, or divide them among applications",
        )
    names = {version.model for version in versions}
    for index, name in enumerate(settings.preload):
        if name not in names:
            raise SpecError(
                "this is none of the application's adapters",
                field=f"adapters.preload[{index}]",
                got=name,
            )
    for version in versions:
        longest = version.manifest.signature.max_length or 0
        if longest > spec.batching.max_tokens:
            raise SpecError(
                f"a text of {version} may have {longest} tokens, more than a whole batch",
                field="batching.max_tokens",
                got=spec.batching.max_tokens,
                allowed=f"at least {longest}",
            )
