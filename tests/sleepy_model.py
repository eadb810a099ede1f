"""A deployment whose speed is known: its batches take a fixed time and one for each token."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

from kovar.inference import BatchLimits, BatchRunner, Encoded, Prediction, Runtime
from kovar.serving.autoscaling.binding import reported

BATCH_S = 0.01
TOKEN_S = 0.002
TOKENS_PER_TEXT = 50


class SleepyRuntime(Runtime):
    """Sleeps instead of computing, so that the machine's load does not matter."""

    name = "sleepy"
    precision = "fp32"
    labels = ("asleep",)
    max_length = 64

    def tokenize(self, texts: Sequence[str]) -> list[Encoded]:
        return [Encoded((1,) * TOKENS_PER_TEXT) for _ in texts]

    def run(self, batch: Sequence[Encoded]) -> list[Prediction]:
        Event().wait(BATCH_S + TOKEN_S * sum(item.length for item in batch))
        return [Prediction("asleep", 1.0, {"asleep": 1.0}, truncated=False) for _ in batch]


class SleepyModel:
    """A replica of it, with Kovar's batches and numbers."""

    def __init__(self) -> None:
        limits = BatchLimits(max_rows=16, max_tokens=1024)
        self._runner = BatchRunner(SleepyRuntime(), limits=limits, max_queued=1000)

    async def __call__(self, text: str) -> str:
        import time

        (prediction,) = await self._runner.predict([text], deadline=time.monotonic() + 60)
        return prediction.label

    def record_autoscaling_stats(self) -> dict[str, float]:
        return reported(self._runner.load())
