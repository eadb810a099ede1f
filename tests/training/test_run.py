"""One run from spec to registered version, in this process."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys

import pytest
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kovar.errors import GateError, NonFiniteError, UserError
from kovar.events import read_events
from kovar.registry import BetterThanIncumbent, Gates, Registry, read_golden
from kovar.training.history import read_history
from tiny_run import run_spec, spoil_weights, write_spec
from tiny_version import settings_in


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    settings = settings_in(folder)
    return settings, run_spec(write_spec(folder), settings)


def weights_of(result):
    return hashlib.sha256((result.folder.model / "model.safetensors").read_bytes()).hexdigest()


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_run_learns_and_its_version_says_so(finished):
    _, result = finished
    assert result.metrics["accuracy"] >= 0.9
    assert result.version.manifest.metrics["evaluation"]["num_rows"] == 24


def test_the_version_records_data_spec_seed_environment_and_weights(finished):
    _, result = finished
    manifest = result.version.manifest
    assert manifest.data.split.num_train == 96
    assert manifest.spec["training"]["learning_rate"] == 0.005
    assert manifest.environment.packages["torch"]
    assert manifest.training["weights_digest"] == weights_of(result)
    assert manifest.signature.labels == ("negative", "positive")


def test_the_alias_points_at_the_version_and_the_history_names_the_run(finished):
    settings, result = finished
    with Registry.open(settings) as registry:
        assert registry.resolve("tiny@champion").digest == result.version.digest
        (move,) = registry.history("tiny", "champion")
    assert result.folder.run in move.reason


def test_the_events_tell_the_story_in_order(finished):
    _, result = finished
    kinds = [event["event"] for event in read_events(result.folder.events)]
    milestones = ["queued", "planned", "started", "checkpoint", "evaluated", "finished"]
    assert [k for k in dict.fromkeys(kinds) if k in milestones] == milestones
    assert kinds[-1] == "registered"


def test_the_run_folder_holds_curve_card_result_and_no_checkpoints(finished):
    _, result = finished
    folder = result.folder
    assert folder.curve.read_bytes().startswith(b"\x89PNG")
    assert result.version.digest in folder.card.read_text()
    assert json.loads(folder.result.read_text())["digest"] == result.version.digest
    assert not folder.checkpoints.exists()


def test_tensorboard_reads_the_scalars(finished):
    _, result = finished
    board = EventAccumulator(str(result.folder.tensorboard)).Reload()
    assert {"train/loss", "train/learning_rate", "evaluation/accuracy"} <= set(
        board.Tags()["scalars"]
    )


def test_golden_examples_travel_with_the_version(finished):
    settings, result = finished
    with Registry.open(settings) as registry:
        golden = read_golden(registry.materialize(result.version))
    assert len(golden.examples) == 16


def test_the_same_submission_returns_the_finished_run(finished):
    settings, result = finished
    before = len(list(read_events(result.folder.events)))
    again = run_spec(result.folder.root.parents[1] / "spec.yaml", settings)
    assert again.reused
    assert again.version == result.version
    assert len(list(read_events(result.folder.events))) == before


def test_the_same_submission_does_not_take_an_alias_back(finished, tmp_path):
    settings = settings_in(tmp_path)
    path = write_spec(tmp_path)
    first = run_spec(path, settings)
    write_spec(tmp_path, training={"epochs": 1, "max_tokens": 128}, name="tiny")
    second = run_spec(path, settings)
    write_spec(tmp_path)
    assert run_spec(path, settings).version == first.version
    with Registry.open(settings) as registry:
        assert registry.resolve("tiny@champion") == second.version


def test_two_fresh_runs_end_with_the_same_weights(finished, tmp_path):
    _, first = finished
    second = run_spec(write_spec(tmp_path), settings_in(tmp_path))
    assert weights_of(second) == weights_of(first)
    assert second.version.digest == first.version.digest


def test_another_seed_ends_with_other_weights(finished, tmp_path):
    _, first = finished
    training = dict(first.version.manifest.spec["training"], seed=1)
    other = run_spec(write_spec(tmp_path, training=training), settings_in(tmp_path))
    assert weights_of(other) != weights_of(first)


RUN_IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from tiny_run import run_spec
from tiny_version import settings_in
run_spec(Path(sys.argv[1]), settings_in(Path(sys.argv[1]).parent))
"""


def start_and_kill(path, events, *, step):
    """Run a spec in a process of its own, and SIGKILL it once it has reached and saved a step."""
    command = [sys.executable, "-c", RUN_IN_ANOTHER_PROCESS, str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    with subprocess.Popen(command, env=environment) as process:
        while process.poll() is None:
            seen = {e["event"]: e["step"] for e in read_events(events) if "step" in e}
            if "checkpoint" in seen and seen.get("step", 0) >= step:
                process.kill()
    assert process.returncode == -signal.SIGKILL


def test_a_killed_driver_resumes_when_submitted_again_and_ends_with_the_same_weights(tmp_path):
    long = {"epochs": 60, "max_tokens": 128, "checkpoint_every": 10, "evaluate_every": 900}
    (tmp_path / "killed").mkdir()
    (tmp_path / "undisturbed").mkdir()
    path = write_spec(tmp_path / "killed", training=long)
    settings = settings_in(path.parent)
    undisturbed = run_spec(
        write_spec(tmp_path / "undisturbed", training=long), settings_in(tmp_path / "undisturbed")
    )
    events = settings.runs_dir / undisturbed.folder.run / "events.jsonl"
    start_and_kill(path, events, step=random.Random(1).randrange(20, 200))
    durable = [e["step"] for e in read_events(events) if e["event"] == "checkpoint"]
    resumed = run_spec(path, settings)
    _, last = read_history(resumed.folder).attempts
    assert last.resumed_from >= max(durable)
    assert last.num_repeated <= long["checkpoint_every"]
    assert weights_of(resumed) == weights_of(undisturbed)
    assert names_in(resumed.folder.root) == names_in(undisturbed.folder.root)
    assert len(names_in(resumed.folder.attempts)) == 2


def test_a_run_that_diverges_fails_and_registers_nothing(tmp_path):
    settings = settings_in(tmp_path)
    path = write_spec(tmp_path)
    spoil_weights(tmp_path / "encoder")
    with pytest.raises(NonFiniteError, match=r"step \d+: loss"):
        run_spec(path, settings)
    with Registry.open(settings) as registry:
        assert registry.models() == ()
    (run,) = settings.runs_dir.iterdir()
    failed = [e for e in read_events(run / "events.jsonl") if e["event"] == "failed"]
    assert [e["error"] for e in failed] == ["NonFiniteError"]


def test_a_change_that_cannot_move_the_weights_trains_nothing(finished):
    settings, result = finished
    folder = result.folder.root.parents[1]
    described = {"alias": "champion", "intended_use": "another description"}
    path = write_spec(folder, max_failures=9, registration=described)
    again = run_spec(path, settings)
    write_spec(folder)
    assert again.reused
    assert again.folder == result.folder
    assert again.version.number == result.version.number + 1
    assert weights_of(again) == weights_of(result)
    with Registry.open(settings) as registry:
        assert registry.resolve("tiny@champion") == again.version


def test_fresh_trains_again_in_a_folder_of_its_own_and_finds_the_same_version(finished):
    settings, result = finished
    again = run_spec(result.folder.root.parents[1] / "spec.yaml", settings, fresh=True)
    assert not again.reused
    assert again.folder.run == f"{result.folder.run}-2"
    assert again.version.digest == result.version.digest


def test_a_run_that_another_process_executes_is_refused(finished):
    settings, result = finished
    with FileLock(result.folder.lock), pytest.raises(UserError, match="already being executed"):
        run_spec(result.folder.root.parents[1] / "spec.yaml", settings)


def test_a_finished_run_is_registered_as_it_was_trained_whatever_is_installed_now(finished):
    settings, result = finished
    trained = json.loads(result.folder.metrics.read_text())
    facts = result.version.manifest.environment
    assert trained["environment"] == facts.model_dump(mode="json")
    trained["environment"]["packages"]["torch"] = "0.0"  # as if trained with another torch
    result.folder.metrics.write_text(json.dumps(trained))
    again = run_spec(result.folder.root.parents[1] / "spec.yaml", settings)
    assert again.version.manifest.environment.packages["torch"] == "0.0"


def test_a_large_seed_trains(tmp_path):
    training = {"epochs": 1, "max_steps": 2, "max_tokens": 128, "seed": (1 << 63) - 1}
    assert run_spec(write_spec(tmp_path, training=training), settings_in(tmp_path)).version


def test_predictions_and_the_golden_check_let_gates_compare_versions(tmp_path):
    settings = settings_in(tmp_path)
    untrained = {"epochs": 1, "max_steps": 1, "max_tokens": 128, "learning_rate": 1e-9}
    first = run_spec(write_spec(tmp_path, training=untrained), settings)
    with Registry.open(settings) as registry:
        better = BetterThanIncumbent(by=0.05)
        gates = Gates(better_than_incumbent=better, golden_parity=("torch",))
        registry.declare_gates("tiny", gates)
    second = run_spec(write_spec(tmp_path), settings)
    with Registry.open(settings) as registry:
        assert registry.resolve("tiny@champion") == second.version
        with pytest.raises(GateError, match="better"):
            registry.promote(
                "tiny", to=first.version.number, expected=second.version.number, reason="worse"
            )
