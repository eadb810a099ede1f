"""From checked requests to answers of a model, the same for every protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kovar.errors import RequestError
from kovar.inference import Answer, Encoded, Prediction, Text, Timing
from kovar.serving.body_room import BodyRoom
from kovar.serving.exchange import Exchange
from kovar.serving.protocol.attribution import TokenWeight, token_weights
from kovar.serving.protocol.embeddings import Embedded
from kovar.serving.protocol.infer import (
    EMBEDDING_OUTPUT,
    Inference,
    Inferred,
    WantedOutput,
    model_inputs,
    text_field,
)
from kovar.serving.protocol.refusal import check_texts, text_fields
from kovar.serving.served_model import Model, ModelTable, ServedModel
from kovar.serving.spec import RequestLimits


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predictions of one request and how long they took."""

    predictions: Sequence[Prediction]
    timing: Timing
    attributions: Sequence[Sequence[TokenWeight]] | None = None


class Answering:
    """Answers requests that were read, whichever way they came.

    Args:
        models: the application's models.
        limits: what is refused.
    """

    def __init__(self, models: ModelTable, limits: RequestLimits) -> None:
        self.models = models
        self.limits = limits
        self.room = BodyRoom.of(limits)

    def model(self, exchange: Exchange, name: str | None, version: str | None = None) -> Model:
        """Find the model and note it.

        Raises:
            RequestError: 404 the application does not serve it.
        """
        found = self.models.find(name, version)
        exchange.model = found.served.model
        exchange.version = str(found.served.version)
        exchange.digest = found.served.digest
        return found

    async def load(self, name: str, *, deadline: float) -> None:
        """Bring all versions of a model into memory.

        Raises:
            RequestError: 404 the application does not serve it; 503 it cannot be loaded.
        """
        for model in self.models.all_of(name):
            await model.load(deadline=deadline)

    def unload(self, name: str) -> None:
        """Let all versions of a model go from memory.

        Raises:
            RequestError: 400 it is always in memory; 404 the application does not serve it.
        """
        models = self.models.all_of(name)
        for model in [one for one in models if not one.is_always_loaded] or models:
            model.unload()

    async def predict(
        self,
        model: Model,
        texts: Sequence[Text],
        exchange: Exchange,
        *,
        deadline: float,
        truncate: bool | None = None,
        attributions: bool = False,
    ) -> Predicted:
        """Predict texts, and tell how much each token counted where that is asked for.

        Raises:
            RequestError: the texts break a limit, or cannot be answered.
        """
        check_texts(texts, self.limits)
        _note_texts(exchange, texts)
        if attributions and len(texts) > self.limits.max_attributed:
            raise RequestError(
                f"{len(texts)} texts, at most {self.limits.max_attributed} with attributions",
                code="too_many_inputs",
                field="inputs",
            )
        async with model.loaded(deadline=deadline) as ready:
            if attributions:
                return await self._explained(ready, texts, exchange, deadline, truncate)
            answer = await ready.ask(
                texts, deadline=deadline, run=ready.run, truncate=self._truncates(truncate)
            )
        _note_answer(exchange, answer.num_tokens, answer.timing, answer.outputs)
        return Predicted(answer.outputs, answer.timing)

    async def _explained(
        self,
        model: ServedModel,
        texts: Sequence[Text],
        exchange: Exchange,
        deadline: float,
        truncate: bool | None,
    ) -> Predicted:
        answers = []
        for index, text in enumerate(texts):
            # Each for itself, because one takes as long as a whole batch of predictions: others
            # get their turn in between.
            run = partial(model.attribute)
            cuts = self._truncates(truncate)
            with text_fields(f"inputs[{index}]"):
                answers.append(await model.ask([text], deadline=deadline, run=run, truncate=cuts))
        outputs = [answer.outputs[0] for answer in answers]
        predictions = [item.prediction for item in outputs]
        timing = _sum([answer.timing for answer in answers])
        _note_answer(exchange, sum(a.num_tokens for a in answers), timing, predictions)
        weights = [
            token_weights(model.spans(text), item.weights)
            for text, item in zip(texts, outputs, strict=True)
        ]
        return Predicted(predictions, timing, weights)

    async def embed(
        self,
        model: Model,
        inputs: Sequence[Text] | Sequence[Encoded],
        exchange: Exchange,
        *,
        deadline: float,
        truncate: bool | None = None,
    ) -> Answer[Embedded]:
        """Give the embeddings of checked inputs.

        Raises:
            RequestError: they cannot be answered.
        """
        _note_texts(exchange, inputs)
        async with model.loaded(deadline=deadline) as ready:
            answer = await ready.ask(
                inputs, deadline=deadline, run=ready.embed, truncate=self._truncates(truncate)
            )
        _note_answer(exchange, answer.num_tokens, answer.timing, ())
        return answer

    async def infer(
        self,
        model: Model,
        request: Inference,
        outputs: Sequence[WantedOutput],
        exchange: Exchange,
        *,
        deadline: float,
    ) -> tuple[Inferred, Timing]:
        """Answer a request of the Open Inference Protocol.

        Raises:
            RequestError: a tensor is wrong, breaks a limit, or cannot be answered.
        """
        inputs: Any = model_inputs(request.inputs, model.served, self.limits)
        _note_texts(exchange, inputs)
        if request.timeout_s is not None:
            deadline = min(deadline, time.monotonic() + request.timeout_s)
        with text_fields(text_field(request.inputs)):
            return await self._inferred(
                model, inputs, outputs, exchange, deadline, self._truncates(request.truncate)
            )

    async def _inferred(
        self,
        model: Model,
        inputs: Sequence[Text] | Sequence[Encoded],
        outputs: Sequence[WantedOutput],
        exchange: Exchange,
        deadline: float,
        truncate: bool,
    ) -> tuple[Inferred, Timing]:
        names = {output.name for output in outputs}
        embeddings: Sequence[Embedded] = ()
        timing: Timing | None = None
        if EMBEDDING_OUTPUT in names:
            embedded = await self.embed(
                model, inputs, exchange, deadline=deadline, truncate=truncate
            )
            embeddings, timing = embedded.outputs, embedded.timing
            if names == {EMBEDDING_OUTPUT}:
                return Inferred(embeddings=embeddings), timing
        async with model.loaded(deadline=deadline) as ready:
            answer = await ready.ask(inputs, deadline=deadline, run=ready.run, truncate=truncate)
        _note_answer(exchange, answer.num_tokens, answer.timing, answer.outputs)
        return Inferred(answer.outputs, embeddings), answer.timing

    def _truncates(self, wanted: bool | None) -> bool:
        return self.limits.truncate if wanted is None else wanted


def _note_texts(exchange: Exchange, inputs: Sequence[Text] | Sequence[Encoded]) -> None:
    exchange.num_texts = len(inputs)
    exchange.texts = [
        item if isinstance(item, str) else "\n".join(item)
        for item in inputs
        if not isinstance(item, Encoded)
    ]


def _note_answer(
    exchange: Exchange, num_tokens: int, timing: Timing, predictions: Sequence[Prediction]
) -> None:
    exchange.num_tokens = num_tokens
    exchange.timing = timing
    exchange.labels = [item.label for item in predictions]


def _sum(timings: Sequence[Timing]) -> Timing:
    return Timing(
        tokenize_s=sum(one.tokenize_s for one in timings),
        queue_s=sum(one.queue_s for one in timings),
        compute_s=sum(one.compute_s for one in timings),
    )
