"""Passes that do not fit into the memory, and how many tokens do."""

from __future__ import annotations

import pytest
import torch

from broken import SmallMemory
from kovar.errors import OutOfMemoryError
from kovar.training import TrainingSettings
from kovar.training.budget import measure_budget
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.parallel import Parallel
from kovar.training.shrinking import PassTooLargeError

SETTINGS = TrainingSettings(
    epochs=1, max_tokens=128, learning_rate=0.005, checkpoint_every=4, dropout=0.0
)
AUTO = SETTINGS.model_copy(update={"micro_batch_tokens": "auto"})
MiB = 1 << 20


def named(events, kind):
    return [fields for event, fields in events if event == kind]


def distance(one, other):
    pairs = ((p.detach(), other.parameters[n].detach()) for n, p in one.parameters.items())
    return max(float((p - q).abs().max()) for p, q in pairs)


@pytest.mark.parametrize("cpu", [False, True])
def test_a_pass_that_is_too_large_is_halved_and_teaches_the_same(engines, tmp_path, cpu):
    events, whole = [], engines(SETTINGS)
    whole.train(CheckpointFolder(tmp_path / "whole", keep=2))
    small = engines(SETTINGS, task=SmallMemory(3, cpu=cpu), events=events)
    small.train(CheckpointFolder(tmp_path / "small", keep=2))
    shrunk = named(events, "shrunk")
    assert [told["micro_batch_tokens"] for told in shrunk] == sorted(
        {told["micro_batch_tokens"] for told in shrunk}, reverse=True
    )
    assert sum(told["targets"] for told in named(events, "step")) == 96
    assert distance(whole, small) < 1e-3


def test_a_resumed_run_begins_with_the_smaller_passes(engines, tmp_path):
    checkpoints, kept = CheckpointFolder(tmp_path, keep=2), []
    engine = engines(
        SETTINGS, task=SmallMemory(3), remember=lambda adjustments, writes: kept.append(adjustments)
    )
    engine.train(checkpoints)
    assert checkpoints.newest().load()[2]["adjustments"] == kept[-1].to_json()
    events = []
    again = engines(SETTINGS, task=SmallMemory(3), events=events, adjustments=kept[-1])
    again.train(checkpoints)
    assert not named(events, "shrunk")
    assert distance(engine, again) == 0


def test_one_row_that_does_not_fit_ends_the_run(engines, tmp_path):
    with pytest.raises(OutOfMemoryError, match="one row of"):
        engines(SETTINGS, task=SmallMemory(0)).train(CheckpointFolder(tmp_path, keep=2))


def test_an_evaluation_that_does_not_fit_is_cut_smaller_too(engines):
    events = []
    engine = engines(SETTINGS, task=SmallMemory(5, everywhere=True), events=events)
    whole = engines(SETTINGS)
    assert engine.evaluate()["loss"] == pytest.approx(whole.evaluate()["loss"])
    assert named(events, "shrunk")


def test_other_errors_of_a_pass_are_not_taken_for_a_full_memory(engines):
    engine = engines(SETTINGS)
    engine.step._objective = lambda outputs, batch: torch.zeros(2) @ torch.zeros(3)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        engine.step(engine.feed.prepare(engine.steps[0]), 0.1)


def test_among_several_ranks_one_that_is_full_makes_all_start_again(engines):
    kept = []
    engine = engines(
        SETTINGS,
        task=SmallMemory(3),
        remember=lambda adjustments, writes: kept.append((adjustments.micro_batch_tokens, writes)),
    )
    batch = engine.feed.prepare(max(engine.steps, key=lambda step: len(step.batch.rows)))
    engine.parallel = Parallel(1, 2, engine.device)
    with pytest.raises(PassTooLargeError):
        engine._move(batch)
    (told,) = kept
    assert told == (batch.rows_per_pass // 2 * batch.planned.batch.longest, True)


def test_measuring_leaves_the_engine_as_it_was(engines, tmp_path):
    measured, plain = engines(SETTINGS), engines(SETTINGS)
    measure_budget(measured)
    assert not measured.optimizer.state
    assert all(p.grad is None for p in measured.parameters.values())
    for number, engine in enumerate((measured, plain)):
        engine.train(CheckpointFolder(tmp_path / str(number), keep=2))
    assert distance(measured, plain) == 0


def test_measured_bytes_repeat_and_are_those_of_the_optimizer(engines):
    one, other = measure_budget(engines(SETTINGS)), measure_budget(engines(SETTINGS))
    assert one.bytes_per_token == other.bytes_per_token > 0
    size = sum(p.nbytes for p in engines(SETTINGS).parameters.values())
    assert size * 2 <= one.optimizer_bytes <= size * 2 + 1024


def test_less_memory_gives_smaller_passes_and_much_gives_the_whole_batch(engines):
    from kovar.training.budget import _resident_bytes

    engine = engines(SETTINGS.model_copy(update={"max_tokens": 2048}))
    found = [
        measure_budget(engine, limit_bytes=_resident_bytes() + size * MiB).micro_batch_tokens
        for size in (1, 8, 4096)
    ]
    assert found == sorted(found)
    assert found[0] < found[2] == 2048


def test_a_probe_that_does_not_fit_leaves_one_row_at_a_time(engines, tmp_path):
    events = []
    engine = engines(AUTO, task=SmallMemory(1), events=events)
    engine.train(CheckpointFolder(tmp_path, keep=2))
    (told,) = named(events, "measured")
    assert told["micro_batch_tokens"] == engine.dataset.open("train").lengths.max()


def test_measuring_where_not_one_row_fits_says_so(engines):
    with pytest.raises(OutOfMemoryError, match="measuring: one row of"):
        measure_budget(engines(SETTINGS, task=SmallMemory(0)))


def test_an_automatic_budget_is_measured_once_and_told(engines, tmp_path):
    events, kept = [], []
    options = {"events": events, "remember": lambda adjustments, writes: kept.append(adjustments)}
    engines(AUTO, **options).train(CheckpointFolder(tmp_path / "a", keep=2))
    (told,) = named(events, "measured")
    assert told["micro_batch_tokens"] == kept[-1].micro_batch_tokens
    engines(AUTO, **options, adjustments=kept[-1]).train(CheckpointFolder(tmp_path / "b", keep=2))
    assert len(named(events, "measured")) == 1


def test_a_budget_holds_for_an_evaluation_and_for_fewer_ranks_too(engines):
    from kovar.training.budget import _resident_bytes

    engine = engines(SETTINGS.model_copy(update={"max_tokens": 2048}))
    engine.parallel.data_size = 2048
    limit = _resident_bytes() + MiB
    assert measure_budget(engine, limit_bytes=limit).micro_batch_tokens < 2048
