"""One adapter of an application: known at all times, in memory while it is asked for."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from kovar.serving.adapters.pool import AdapterPool
from kovar.serving.protocol.repository import ModelState
from kovar.serving.protocol.served import ServedVersion

if TYPE_CHECKING:
    from kovar.registry import Version
    from kovar.serving.served_model import ServedModel


class AdapterModel:
    """An adapter as the application's table of models holds it; `ServedModel` is the other kind.

    Args:
        served: names the version, whether it is in memory or not.
        pool: lends it.
    """

    def __init__(self, served: ServedVersion, pool: AdapterPool) -> None:
        self.served = served
        self._pool = pool

    @property
    def is_always_loaded(self) -> bool:
        """Whether it is in memory as long as the replica runs."""
        return False

    @property
    def is_ready(self) -> bool:
        """Whether a request would be answered, if only once the adapter is loaded."""
        return self._pool.problem(self.served.digest) is None

    @property
    def state(self) -> ModelState:
        """What is known of it."""
        digest = self.served.digest
        if self._pool.is_loaded(digest):
            return ModelState("READY")
        if self._pool.is_loading(digest):
            return ModelState("LOADING")
        problem = self._pool.problem(digest)
        return ModelState("UNAVAILABLE", problem or "not in memory: its first request loads it")

    def loaded(self, *, deadline: float) -> AbstractAsyncContextManager[ServedModel]:
        """Return a context in which it is in memory; see `AdapterPool.lend`."""
        return self._pool.lend(self.served.digest, deadline=deadline)

    async def load(self, *, deadline: float) -> None:
        """Bring it into memory; see `AdapterPool.load`."""
        await self._pool.load(self.served.digest, deadline=deadline)

    def unload(self) -> None:
        """Let it go; its next request loads it again."""
        self._pool.drop([self.served.digest])


def adapter_facts(
    version: Version,
    *,
    max_positions: int,
    precision: str,
    vocabulary_size: int,
    embedding_size: int,
    merge: bool,
) -> ServedVersion:
    """Name an adapter as its responses do, before it is loaded.

    Args:
        version: the adapter.
        max_positions: tokens that its base reads at most.
        precision: that it is computed at.
        vocabulary_size: of its base.
        embedding_size: of its base.
        merge: whether it is merged.
    """
    how = "merged when it is loaded" if merge else "beside its base"
    signature = version.manifest.signature
    return ServedVersion(
        model=version.model,
        version=version.number,
        digest=version.digest,
        labels=signature.labels,
        max_length=min(signature.max_length or max_positions, max_positions),
        runtime="torch",
        precision=precision,
        vocabulary_size=vocabulary_size,
        embedding_size=embedding_size,
        reason=f"torch {precision}: an adapter {how}",
    )
