"""What the trials of a sweep start from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kovar.config import load_yaml
from kovar.errors import SpecError
from kovar.registry import Registry
from kovar.training import FineTuneSpec
from kovar.training.plan import unplanned_run
from kovar.training.progress import RunProgress
from kovar.tuning.inputs import TrialInputs
from tiny_run import write_spec
from tiny_version import settings_in


@pytest.fixture
def prepared(tmp_path):
    """The inputs of a sweep, and its base spec."""
    path = write_spec(tmp_path)
    settings = settings_in(tmp_path)
    with Registry.open(settings) as registry:
        progress = RunProgress(quiet=True)
        inputs = TrialInputs(
            base_dir=tmp_path, settings=settings, registry=registry, progress=progress
        )
        yield inputs, load_yaml(path, FineTuneSpec)


def with_training(spec, **training):
    """Return a spec with other training settings."""
    return spec.model_copy(update={"training": spec.training.model_copy(update=training)})


def test_trials_of_one_model_and_data_set_share_what_was_prepared(prepared, tmp_path):
    inputs, spec = prepared
    first = inputs.task(spec, folder=tmp_path / "trial-0001")
    second = inputs.task(with_training(spec, learning_rate=0.1), folder=tmp_path / "trial-0002")
    assert second.dataset is first.dataset
    assert second.base is first.base
    assert (second.purpose, second.folder.name) == ("trial", "trial-0002")


def test_another_longest_text_is_tokenized_for_itself(prepared, tmp_path):
    inputs, spec = prepared
    shorter = spec.model_copy(update={"data": spec.data.model_copy(update={"max_length": 8})})
    tasks = [inputs.task(one, folder=tmp_path) for one in (spec, shorter)]
    assert tasks[0].dataset.fingerprint != tasks[1].dataset.fingerprint


def test_a_budget_that_a_trial_proposes_is_checked_though_others_passed(prepared, tmp_path):
    inputs, spec = prepared
    inputs.task(spec, folder=tmp_path)
    with pytest.raises(SpecError, match="longest training row"):
        inputs.task(with_training(spec, max_tokens=4), folder=tmp_path)


def test_less_room_is_checked_though_the_same_spec_passed_with_more(prepared, tmp_path):
    inputs, spec = prepared
    inputs.task(spec, folder=tmp_path)
    plan = unplanned_run(spec)
    small = plan.request.model_copy(update={"memory": 1 << 20})
    with pytest.raises(SpecError, match="training needs about"):
        inputs.task(spec, folder=tmp_path, plan=in_memory(plan, small))


def in_memory(plan, request):
    """Return a plan whose worker has the memory that it requests."""
    from kovar.resources.memory_room import MemoryRoom

    return replace(plan, request=request, room=MemoryRoom(request.memory, "tiny", "memory"))
