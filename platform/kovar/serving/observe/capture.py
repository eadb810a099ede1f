"""A sample of what a model is asked and answers, masked before anything is written."""

from __future__ import annotations

import logging
import queue
import random
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kovar.serving.exchange import Exchange
from kovar.serving.observe.json_lines import JsonLines
from kovar.serving.observe.masking import mask
from kovar.serving.observe.settings import CaptureSettings

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 256
MAX_WAITING_BYTES: Final = 16 << 20
"""Of texts, in memory: a few requests of the largest size, thousands of the usual one."""
MAX_FILES: Final = 8
FILES: Final = "capture-*.jsonl*"


@dataclass(frozen=True, slots=True)
class _Sample:
    facts: dict[str, Any]
    texts: Sequence[Any]
    labels: Sequence[str]
    size_bytes: int


class Capture:
    """Keeps a share of the answered requests, in one file a day.

    Masking takes longer than answering may wait for, so a thread does it; when more samples come
    than it masks, by number or by size, they are dropped and counted. Texts that wait are in memory
    alone.

    Args:
        settings: which share, and what is kept of it.
        folder: where the files go.
        name: of the replica, in the name of its files.
        max_file_bytes: size at which a file is closed and another begun.
        draw: gives numbers from 0 to 1, to choose the sample.
        max_waiting_bytes: memory of the texts that wait.
    """

    def __init__(
        self,
        settings: CaptureSettings,
        folder: Path,
        *,
        name: str,
        max_file_bytes: int,
        draw: Callable[[], float] = random.random,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._name = name
        self._max_file_bytes = max_file_bytes
        self._lines: JsonLines | None = None
        self._draw = draw
        self._waiting: queue.Queue[_Sample | None] = queue.Queue(MAX_WAITING)
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self.num_dropped = 0
        self._thread = threading.Thread(target=self._work, name="kovar-capture", daemon=True)
        self._thread.start()

    def offer(self, exchange: Exchange) -> None:
        """Keep this request, or not; returns at once."""
        if exchange.code is not None or not exchange.texts or self._draw() >= self._settings.share:
            return
        facts = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": exchange.request_id,
            "model": exchange.model,
            "version": exchange.version,
            "digest": exchange.digest,
        }
        size_bytes = sum(map(sys.getsizeof, exchange.texts))
        if not self._reserve(size_bytes):
            self._drop()
            return
        try:
            self._waiting.put_nowait(
                _Sample(facts, exchange.texts, exchange.labels, size_bytes=size_bytes)
            )
        except queue.Full:
            self._reserve(-size_bytes)
            self._drop()

    def _reserve(self, size_bytes: int) -> bool:
        """Count the memory of a sample that will wait, if there is room for it."""
        with self._lock:
            after = self._waiting_bytes + size_bytes
            if after > self._max_waiting_bytes:
                return False
            self._waiting_bytes = after
            return True

    def _drop(self) -> None:
        with self._lock:
            self.num_dropped += 1

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._waiting.put(None)
        self._thread.join()
        if self._lines is not None:
            self._lines.close()

    def _work(self) -> None:
        while (sample := self._waiting.get()) is not None:
            try:
                record = self._masked(sample)
                self._file_of(record["time"][:10]).write(record)
            except Exception as problem:
                # What cannot be masked is not written, and its message may quote it.
                logger.error("a sample was not kept: %s", type(problem).__name__)
                self._drop()
            finally:
                self._reserve(-sample.size_bytes)

    def _masked(self, sample: _Sample) -> dict[str, Any]:
        texts: list[str | list[str]] = []
        counts: dict[str, int] = {}
        for text in sample.texts:
            parts = [text] if isinstance(text, str) else list(text)
            kept = []
            for part in parts:
                masked = mask(part, phone_regions=self._settings.phone_regions)
                kept.append(masked.text[: self._settings.max_characters])
                for kind, number in masked.counts.items():
                    counts[kind] = counts.get(kind, 0) + number
            texts.append(kept[0] if isinstance(text, str) else kept)
        return sample.facts | {"texts": texts, "labels": list(sample.labels), "masked": counts}

    def _file_of(self, day: str) -> JsonLines:
        """Return the file of a day: it goes as a whole when its last line is old enough."""
        path = self._folder / f"capture-{day}-{self._name}.jsonl"
        if self._lines is None or self._lines.path != path:
            if self._lines is not None:
                self._lines.close()
            self._lines = JsonLines(path, max_bytes=self._max_file_bytes, num_files=MAX_FILES)
        return self._lines
