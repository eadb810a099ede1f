"""One version of an application and what answers for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from kovar.errors import KovarError, RequestError
from kovar.inference import Answer, Attribution, Encoded, Prediction, Runtime, Text
from kovar.inference.answering import Owner, Run, Tokenize
from kovar.serving.protocol.attribution import Span
from kovar.serving.protocol.embeddings import Embedded
from kovar.serving.protocol.refusal import too_many_tokens
from kovar.serving.protocol.repository import ModelState
from kovar.serving.protocol.served import ServedVersion

OutputT = TypeVar("OutputT")

NAMED: Final = 20
"""Models that a refusal names; there may be a thousand."""


class Predictor(Protocol):
    """What answers; `kovar.inference.BatchRunner` is one."""

    async def ask(
        self,
        inputs: Sequence[Text] | Sequence[Encoded],
        *,
        deadline: float,
        run: Run[OutputT],
        tokenize: Tokenize | None = None,
        owner: Owner = ("", ""),
    ) -> Answer[OutputT]:
        """Run inputs; `deadline` is a moment on `time.monotonic`."""
        ...

    def check(self) -> None:
        """Raise KovarError when answers cannot come any more."""
        ...


class Model(Protocol):
    """One model of an application: always in memory (`ServedModel`), or while it is asked for."""

    @property
    def served(self) -> ServedVersion:
        """Names the version."""
        ...

    @property
    def is_always_loaded(self) -> bool:
        """Whether it is in memory as long as the replica runs."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether answers can come."""
        ...

    @property
    def state(self) -> ModelState:
        """Whether it is in memory."""
        ...

    def loaded(self, *, deadline: float) -> AbstractAsyncContextManager[ServedModel]:
        """Return a context in which it is in memory; `deadline` is a moment on `time.monotonic`."""
        ...

    async def load(self, *, deadline: float) -> None:
        """Bring it into memory."""
        ...

    def unload(self) -> None:
        """Let it go.

        Raises:
            RequestError: 400 it is always in memory.
        """
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedModel:
    """One version and its parts: texts are tokenized and run by them, batch by batch.

    Attributes:
        served: names the version.
        predictor: the queue in front of the runtime; models of one application may share it.
        tokenize: turns texts into token ids.
        run: predicts a batch.
        embed: gives the embeddings of a batch.
        attribute: gives the weights of a batch's tokens.
        spans: names the tokens of a text and where they stand in it.
    """

    served: ServedVersion
    predictor: Predictor
    tokenize: Tokenize
    run: Run[Prediction]
    embed: Run[Embedded]
    attribute: Run[Attribution]
    spans: Callable[[Text], Sequence[Span]]

    async def ask(
        self,
        inputs: Sequence[Text] | Sequence[Encoded],
        *,
        deadline: float,
        run: Run[OutputT],
        truncate: bool = True,
    ) -> Answer[OutputT]:
        """Run inputs; without `truncate`, one with too many tokens is refused (422)."""
        return await self.predictor.ask(
            inputs,
            deadline=deadline,
            run=run,
            owner=(self.served.model, str(self.served.version)),
            tokenize=self.tokenize if truncate else self.tokenize_whole,
        )

    def tokenize_whole(self, texts: Sequence[Text]) -> list[Encoded]:
        """Tokenize texts that the model must read to their ends.

        Raises:
            RequestError: 422 a text has more tokens than the model reads.
        """
        encoded = self.tokenize(texts)
        for index, item in enumerate(encoded):
            if item.truncated:
                raise too_many_tokens(index, self.served.max_length)
        return encoded

    @property
    def is_ready(self) -> bool:
        """Whether answers can come."""
        try:
            self.predictor.check()
        except KovarError:
            return False
        return True

    @property
    def is_always_loaded(self) -> bool:
        """Whether it is in memory as long as the replica runs."""
        return True

    @property
    def state(self) -> ModelState:
        """Whether it is in memory and answers."""
        return ModelState("READY" if self.is_ready else "UNAVAILABLE")

    def loaded(self, *, deadline: float) -> AbstractAsyncContextManager[ServedModel]:
        """Return a context in which it is in memory: any."""
        return nullcontext(self)

    async def load(self, *, deadline: float) -> None:
        """Do nothing: it is in memory."""

    def unload(self) -> None:
        """Refuse; see `Model.unload`."""
        raise RequestError(
            "this model is always in memory: only adapters are unloaded",
            status=400,
            code="always_loaded",
        )


def served_model(served: ServedVersion, predictor: Predictor, runtime: Runtime) -> ServedModel:
    """Offer everything that a runtime can do.

    Args:
        served: names the version.
        predictor: the queue in front of the runtime.
        runtime: the loaded version.
    """

    def embed(batch: Sequence[Encoded]) -> list[Embedded]:
        rows = zip(runtime.embed(batch), batch, strict=True)
        return [Embedded(numbers, item.truncated) for numbers, item in rows]

    return ServedModel(
        served=served,
        predictor=predictor,
        tokenize=runtime.tokenize,
        run=runtime.run,
        embed=embed,
        attribute=runtime.attribute,
        spans=runtime.spans,
    )


class ModelTable:
    """The models of one application by name and version; the first one is the default.

    Where an application serves several versions of a model, the first of them answers a request
    that names no version.

    Args:
        models: at least one.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = tuple(models)
        self._named: dict[str, dict[str | None, Model]] = {}
        for model in models:
            served = model.served
            versions = self._named.setdefault(served.model, {None: model})
            versions |= {str(served.version): model, served.digest: model}

    @property
    def default(self) -> Model:
        """The model that answers where none is named."""
        return self.models[0]

    @property
    def is_ready(self) -> bool:
        """Whether answers can come; an adapter that cannot be loaded fails its own alone."""
        return all(model.is_ready for model in self.models if model.is_always_loaded)

    def versions_of(self, model: str) -> list[str]:
        """Return the numbers of a model's versions, the default one first."""
        return [str(one.served.version) for one in self.models if one.served.model == model]

    def find(self, name: str | None, version: str | None = None) -> Model:
        """Return a model by its name, and by its version's number or digest if one is given.

        Raises:
            RequestError: 404 the application does not serve it.
        """
        if name is None:
            return self.default
        versions = self._named.get(name)
        if versions is None:
            raise self._unknown()
        found = versions.get(version)
        if found is None:
            numbers = ", ".join(self.versions_of(name))
            raise RequestError(
                f"unknown version, this application serves version {numbers} of {name}",
                status=404,
                code="version_not_found",
            )
        return found

    def all_of(self, name: str) -> list[Model]:
        """Return all versions of a model.

        Raises:
            RequestError: 404 the application does not serve it.
        """
        if name not in self._named:
            raise self._unknown()
        return [model for model in self.models if model.served.model == name]

    def _unknown(self) -> RequestError:
        names = list(self._named)
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        return RequestError(
            f"unknown model, this application serves {', '.join(names[:NAMED])}{more}",
            status=404,
            code="model_not_found",
        )
