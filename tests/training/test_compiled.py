"""Compiled blocks: few graphs, the same results, and the same graphs in every attempt.

Tested with torch's eager backend: it traces and guards as the others do, and compiles nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from broken import SmallMemory
from kovar.errors import RunError
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.compiled import Compiled, widest_steps
from kovar.training.engine import Engine

# Torch itself looks at the gradient of a block's input while it traces.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

SETTINGS = TrainingSettings(
    epochs=1,
    max_tokens=192,
    micro_batch_tokens=72,
    learning_rate=0.005,
    checkpoint_every=4,
    dropout=0.0,
    compile=True,
)
PLAIN = SETTINGS.model_copy(update={"compile": False})


@dataclass
class Run:
    engine: Engine
    events: list[tuple[str, dict[str, Any]]]
    num_graphs: int

    def steps(self, kind):
        return [fields["step"] for event, fields in self.events if event == kind]


def train(engines, folder, settings):
    events = []
    before = counters["stats"]["unique_graphs"]
    engine = engines(settings, events=events)
    engine.train(CheckpointFolder(folder, keep=2))
    return Run(engine, events, counters["stats"]["unique_graphs"] - before)


@pytest.fixture(scope="module")
def compiled(engines, tmp_path_factory):
    """A compiled run, and the same one once more from its last checkpoint."""
    folder = tmp_path_factory.mktemp("compiled")
    torch._dynamo.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Compiled.__init__.__kwdefaults__, "backend", "eager")
        yield train(engines, folder, SETTINGS), train(engines, folder, SETTINGS)
    torch._dynamo.reset()


def test_a_compiled_run_learns_what_a_plain_one_learns(compiled, engines, tmp_path):
    first, _ = compiled
    plain = train(engines, tmp_path, PLAIN)
    for name, weight in plain.engine.parameters.items():
        assert torch.allclose(weight, first.engine.parameters[name], atol=1e-4)


def test_graphs_are_few_for_each_length_whatever_the_rows(compiled):
    first, _ = compiled
    batches = [first.engine.feed.prepare(step).micro_batches for step in first.engine.steps]
    shapes = {tuple(one.inputs["input_ids"].shape) for cut in batches for one in cut}
    lengths = {length for _, length in shapes}
    assert len(shapes) > len(lengths)
    # With gradients and without, and with padding and without.
    assert len(lengths) <= first.num_graphs <= 4 * len(lengths)


def test_a_rehearsal_that_does_not_fit_is_cut_smaller(compiled, engines, tmp_path):
    events = []
    engine = engines(SETTINGS, task=SmallMemory(3), events=events)
    engine.train(CheckpointFolder(tmp_path, keep=2))
    told = [event for event, _ in events]
    assert told.index("shrunk") < told.index("compiled") < told.index("step")


def test_compiling_is_told_before_the_first_step_and_at_the_first_evaluation(compiled):
    first, _ = compiled
    assert first.events[0][0] == "compiled"
    assert first.steps("compiled") == [0, first.steps("evaluated")[0]]
    assert all(fields["seconds"] > 0 for event, fields in first.events if event == "compiled")


def test_a_compiled_run_that_goes_on_ends_with_the_same_bits(compiled):
    first, again = compiled
    assert again.steps("resumed")
    for name, weight in first.engine.parameters.items():
        assert torch.equal(weight, again.engine.parameters[name])


def test_the_widest_step_of_each_length_comes_first_shorter_lengths_before(engines):
    steps = engines(PLAIN).steps
    widest = widest_steps(steps)
    assert [step.batch.length for step in widest] == sorted({s.batch.length for s in steps})
    for step in widest:
        alike = [s for s in steps if s.batch.length == step.batch.length]
        assert len(step.batch.rows) == max(len(s.batch.rows) for s in alike)


def test_a_model_that_torch_cannot_compile_ends_the_run_with_what_to_do(
    engines, tmp_path, monkeypatch
):
    def refuse(*_):
        raise OSError("no compiler")

    monkeypatch.setitem(Compiled.__init__.__kwdefaults__, "backend", refuse)
    with pytest.raises(RunError, match=r"training\.compile: false"):
        train(engines, tmp_path, SETTINGS)
