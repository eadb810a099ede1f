from __future__ import annotations

from collections.abc import Iterator

import pytest

from in_process import Ask, asker
from kovar.inference import BatchLimits, BatchRunner
from scripted import ScriptedRuntime


@pytest.fixture
def runtime() -> ScriptedRuntime:
    return ScriptedRuntime()


@pytest.fixture
def runner(runtime) -> Iterator[BatchRunner]:
    runner = BatchRunner(runtime, limits=BatchLimits(max_rows=4, max_tokens=64), max_queued=8)
    yield runner
    runtime.gate.set()
    runner.close()


@pytest.fixture
def ask(runner) -> Ask:
    return asker(runner)
