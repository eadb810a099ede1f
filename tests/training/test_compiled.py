"""Compiled blocks: few graphs, the same results, and the same graphs in every attempt.

Tested with torch's eager backend: it traces and guards as the others do, and compiles nothing.
"""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from kovar.errors import RunError
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.compiled import Compiled, widest_steps

# Torch itself looks at the gradient of a block's input while it traces.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

SETTINGS = TrainingSettings(
    epochs=1, max_tokens=192, learning_rate=0.005, checkpoint_every=4, dropout=0.0, compile=True
)
PLAIN = SETTINGS.model_copy(update={"compile": False})


@pytest.fixture(autouse=True)
def traced_alone(monkeypatch):
    """Begin without graphs, and trace without a compiler."""
    torch._dynamo.reset()
    counters.clear()
    backend = Compiled.__init__.__kwdefaults__
    monkeypatch.setitem(backend, "backend", "eager")
    yield
    torch._dynamo.reset()


def trained(engines, folder, settings, **options):
    events = []
    engine = engines(settings, events=events, **options)
    engine.train(CheckpointFolder(folder, keep=2))
    return engine, events


def test_a_compiled_run_learns_what_a_plain_one_learns(engines, tmp_path):
    compiled, _ = trained(engines, tmp_path / "compiled", SETTINGS)
    plain, _ = trained(engines, tmp_path / "plain", PLAIN)
    for name, weight in plain.parameters.items():
        assert torch.allclose(weight, compiled.parameters[name], atol=1e-4)


def test_graphs_are_few_for_each_length_whatever_the_rows(engines, tmp_path):
    cut = SETTINGS.model_copy(update={"micro_batch_tokens": 72})
    engine, _ = trained(engines, tmp_path, cut)
    batches = [engine.feed.prepare(step).micro_batches for step in engine.steps]
    shapes = {tuple(one.inputs["input_ids"].shape) for cut in batches for one in cut}
    lengths = {length for _, length in shapes}
    assert len(shapes) > len(lengths)
    # With gradients and without, and with padding and without.
    assert counters["stats"]["unique_graphs"] <= 4 * len(lengths)


def test_compiling_is_told_before_the_first_step_and_at_the_first_evaluation(engines, tmp_path):
    _, events = trained(engines, tmp_path, SETTINGS)
    kinds = [event for event, _ in events]
    assert kinds[0] == "compiled"
    assert events[0][1]["step"] == 0
    assert [fields["step"] for event, fields in events if event == "compiled"][1:] == [
        next(fields["step"] for event, fields in events if event == "evaluated")
    ]
    assert all(fields["seconds"] > 0 for event, fields in events if event == "compiled")


def test_a_compiled_run_that_goes_on_ends_with_the_same_bits(engines, tmp_path):
    one, _ = trained(engines, tmp_path, SETTINGS)
    other, events = trained(engines, tmp_path, SETTINGS)
    assert [fields["step"] for event, fields in events if event == "resumed"]
    for name, weight in one.parameters.items():
        assert torch.equal(weight, other.parameters[name])


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
        trained(engines, tmp_path, SETTINGS)
