"""The winner of a sweep becomes a version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from kovar.errors import DamagedArtifactError, GateError, RunError
from kovar.registry import Registry, card
from kovar.registry.gates import Gates, MetricBound
from kovar.training.folder import RunFolder
from kovar.training.method import Lora
from kovar.training.progress import RunProgress
from kovar.training.worker import execute
from kovar.tuning.record import TrialRecord
from kovar.tuning.registration import Winner, make_version, promote_winner, register_winner
from kovar.tuning.trial import run_trial
from tiny_trial import tiny_trial
from tiny_version import settings_in

RIVAL = TrialRecord(
    number=2,
    configuration=2,
    seed=0,
    point={"training.learning_rate": 1.0},
    status="diverged",
    metrics={},
)


def ignore(news):
    """Hear a trial's news."""


@pytest.fixture(scope="module")
def winner(tmp_path_factory):
    task = tiny_trial(tmp_path_factory.mktemp("winner"))
    return Winner(task, run_trial(task, report=ignore), sweep="s-0123456789", rivals=(RIVAL,))


@pytest.fixture(scope="module")
def registered(winner):
    """The registry's settings, and the winner's version."""
    settings = settings_in(winner.task.folder.parent)
    with Registry.open(settings) as registry:
        found = register_winner(winner, registry, RunProgress(quiet=True))
        again = register_winner(winner, registry, RunProgress(quiet=True))
    assert again.version.digest == found.version.digest
    return settings, found.version


def digests(folder):
    """Return file → SHA-256 of a version's folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("precision", "method", "training"),
    [
        ("fp32", None, {}),
        ("bf16", None, {"weights": "bf16"}),
        ("fp32", Lora(), {}),
        ("fp32", None, {"ema_decay": 0.9}),
    ],
)
def test_the_winners_files_are_those_of_a_run_of_the_same_spec(
    tmp_path, precision, method, training
):
    options = {"precision": precision, "epochs": 1, **training}
    options |= {"method": method} if method else {}
    task = tiny_trial(tmp_path, **options)
    make_version(task, run_trial(task, report=ignore))
    run = replace(task, purpose="version", folder=tmp_path / "run")
    execute(run, device=torch.device("cpu"))
    trial_paths, run_paths = RunFolder(task.folder), RunFolder(run.folder)
    assert digests(trial_paths.model) == digests(run_paths.model)
    assert json.loads(trial_paths.metrics.read_text()) == json.loads(run_paths.metrics.read_text())


def test_the_version_names_the_sweep_and_its_card_the_rivals(registered):
    _, version = registered
    assert (version.sweep, version.run) == ("s-0123456789", "trial-0001")
    text = card(version)
    assert "s-0123456789" in text
    assert "| 2 | diverged | 1 |" in text


def test_an_alias_is_moved_through_its_gates(registered):
    settings, version = registered
    with Registry.open(settings) as registry:
        move = promote_winner(registry, version, "candidate", sweep="s-0123456789")
        assert (move.to_digest, move.reason) == (version.digest, "winner of sweep s-0123456789")
        assert promote_winner(registry, version, "candidate", sweep="s") is None


def test_a_gate_that_refuses_stops_the_promotion(registered):
    settings, version = registered
    with Registry.open(settings) as registry:
        declare(registry, version)
        with pytest.raises(GateError, match="accuracy"):
            promote_winner(registry, version, "champion", sweep="s")


def declare(registry, version):
    """Ask of the champion what no tiny model reaches."""
    gates = Gates(metrics=(MetricBound(metric="accuracy", minimum=1.1),))
    registry.declare_gates(version.model, gates, alias="champion")


def test_weights_that_were_altered_do_not_become_a_version(winner, tmp_path):
    folder = tmp_path / "trial-0001"
    folder.mkdir()
    data = bytearray((winner.task.folder / winner.end.weights).read_bytes())
    data[-1] ^= 1
    (folder / winner.end.weights).write_bytes(data)
    with pytest.raises(DamagedArtifactError, match="altered"):
        make_version(replace(winner.task, folder=folder), winner.end)


def test_a_trial_without_weights_does_not_become_a_version(winner):
    with pytest.raises(RunError, match="left no weights"):
        make_version(winner.task, replace(winner.end, weights=None))
