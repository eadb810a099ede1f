"""A run whose numbers break goes back to its last good checkpoint and on in a safer precision."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from broken import BrokenBelow, FullMemory, SmallMemory, attempt_broken
from doomed import tiny_task
from kovar.errors import NonFiniteError, SpecError
from kovar.events import read_events
from kovar.precision import Device, resolve
from kovar.registry import Registry, card
from kovar.training.adjustments import Adjustments, Change
from kovar.training.history import findings, read_history
from kovar.training.recovery import Numbers, check_weights, safer
from kovar.training.tasks import TASKS
from tiny_run import run_spec, spoil_weights, write_spec
from tiny_version import settings_in

CPU = Device("cpu", "CPU", bf16_matrix_units=True)
H100 = Device("cuda", "H100", bf16_matrix_units=True, capability=(9, 0))
V100 = Device("cuda", "V100", bf16_matrix_units=False, capability=(7, 0))
BOUND = 0.3


def chain(precision, chip, weights="fp32"):
    numbers = Numbers(resolve(precision, chip), weights)
    told = []
    while (numbers := safer(numbers, chip)) is not None:
        told.append(str(numbers))
    return told


@pytest.mark.parametrize(
    ("precision", "chip", "follows"),
    [
        ("fp8", H100, ["bf16", "fp32"]),
        ("fp16", H100, ["bf16", "fp32"]),
        ("fp16", V100, ["fp32"]),
        ("tf32", H100, ["fp32"]),
        ("bf16", CPU, ["fp32"]),
        ("fp32", CPU, []),
    ],
)
def test_every_precision_has_safer_ones_down_to_fp32(precision, chip, follows):
    assert chain(precision, chip) == follows


def test_weights_in_bf16_go_before_the_precision_does():
    assert chain("bf16", CPU, "bf16") == ["bf16", "fp32"]


def test_weights_in_bf16_need_passes_in_bf16():
    check_weights("bf16", "bf16")
    with pytest.raises(SpecError, match=r"training\.weights"):
        check_weights("bf16", "fp32")


def test_a_change_made_after_the_checkpoint_in_use_is_forgotten():
    changes = tuple(Change(step, "fp32", "fp32", "") for step in (20, 40))
    found = Adjustments(changes, 64)
    assert found.resumed_at(20) == Adjustments(changes[:1], 64)
    assert Adjustments.of(json.loads(json.dumps(found.to_json()))) == found


@pytest.fixture
def broken_task(monkeypatch):
    def put(**options):
        monkeypatch.setitem(TASKS, "text-classification", BrokenBelow(BOUND, **options))

    return put


def stories(result, *kinds):
    return [e for e in read_events(result.folder.events) if e["event"] in kinds]


def weights_of(result):
    return (result.folder.model / "model.safetensors").read_bytes()


def test_a_run_goes_back_and_on_in_fp32_and_says_so(tmp_path, broken_task):
    broken_task()
    settings = settings_in(tmp_path)
    result = run_spec(write_spec(tmp_path, precision="bf16"), settings)
    (told,) = stories(result, "rolled_back")
    assert (told["was"], told["precision"]) == ("bf16", "fp32")
    assert told["to_step"] < told["step"] <= told["to_step"] + 20 + 10
    assert result.version.manifest.precision == "fp32"
    with Registry.open(settings) as registry:
        text = card(registry.version("tiny", "champion"))
    expected = f"went back from step {told['step']} to step {told['to_step']}"
    assert expected in text
    history = read_history(result.folder)
    assert any(expected in finding.what for finding in findings(history))
    assert history.timeline.seconds["recovering"] > 0
    assert history.attempts[-1].precision == "fp32"


def test_a_run_interrupted_after_it_went_back_repeats_the_decision(tmp_path, broken_task):
    broken_task()
    undisturbed = run_spec(
        write_spec(tmp_path / "one", precision="bf16"), settings_in(tmp_path / "one")
    )
    spec, settings = write_spec(tmp_path / "two", precision="bf16"), settings_in(tmp_path / "two")
    broken_task(stop_in_fp32=True)
    with pytest.raises(KeyboardInterrupt):
        run_spec(spec, settings)
    resumed = run_spec(spec, settings)
    assert len(stories(resumed, "rolled_back")) == 1
    assert weights_of(resumed) == weights_of(undisturbed)


def test_a_run_that_stays_broken_fails_in_fp32_and_is_not_registered(tmp_path):
    settings = settings_in(tmp_path)
    path = write_spec(tmp_path, precision="bf16")
    spoil_weights(tmp_path / "encoder")
    with pytest.raises(NonFiniteError, match=r"step \d+: loss"):
        run_spec(path, settings)
    (run,) = settings.runs_dir.iterdir()
    assert [e["event"] for e in read_events(run / "events.jsonl")].count("rolled_back") == 1
    with Registry.open(settings) as registry:
        assert registry.models() == ()


def events_of(task, kind):
    return [e for e in read_events(task.folder / "events.jsonl") if e["event"] == kind]


def test_two_ranks_go_back_together(tmp_path):
    task = tiny_task(tmp_path, checkpoint_every=5, epochs=2)
    task = replace(task, spec=task.spec.model_copy(update={"precision": "bf16"}))
    assert attempt_broken(task, tmp_path / "store", [BrokenBelow(0.7)] * 2) == [0, 0]
    (told,) = events_of(task, "rolled_back")
    assert (told["was"], told["precision"]) == ("bf16", "fp32")
    assert events_of(task, "finished")


def test_a_full_memory_on_one_of_two_ranks_makes_both_pass_less_at_a_time(tmp_path):
    task = tiny_task(tmp_path, checkpoint_every=10, epochs=1)
    small = [SmallMemory(100), SmallMemory(4)]
    codes = [attempt_broken(task, tmp_path / f"store-{n}", small) for n in range(2)]
    assert codes == [[1, 1], [0, 0]]
    (told,) = events_of(task, "shrunk")
    assert told["rank"] == 1
    (finished,) = events_of(task, "finished")
    assert finished["attempt"] == 2


def test_a_rank_whose_memory_never_suffices_ends_the_others_too(tmp_path):
    task = tiny_task(tmp_path, epochs=1, micro_batch_tokens=1)
    small = [SmallMemory(100), FullMemory()]
    assert attempt_broken(task, tmp_path / "store", small) == [1, 1]
    assert [told["error"] for told in events_of(task, "failed")] == ["OutOfMemoryError"]
