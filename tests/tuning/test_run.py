"""What a driver leaves in a sweep's folder, without Ray."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from kovar.errors import RunError
from kovar.training.progress import RunProgress
from kovar.tuning import load_sweep
from kovar.tuning.folder import SweepFolder
from kovar.tuning.ledger import Ledger
from kovar.tuning.run import _run_locked
from tiny_sweep import GRID, write_sweep


class Interrupted:
    """An execution that is killed before it ends."""

    def __init__(self, prepared: Any) -> None:
        self.prepared = prepared

    def run(self) -> None:
        raise KeyboardInterrupt


class Versions:
    """A registry that has whatever it is asked for."""

    def version(self, model: str, digest: str) -> Any:
        return SimpleNamespace(model=model, digest=digest, number=1)


def test_a_sweep_of_which_nothing_finished_shows_how_its_trials_ended(tmp_path):
    execution = execution_in(tmp_path)
    execution.progress = RunProgress(Console(file=StringIO(), width=120))
    with Ledger(execution.prepared.folder.ledger) as ledger:
        ledger.append("opened")
        for number, status in ((1, "diverged"), (2, "stopped")):
            point = {"training.learning_rate": 1e-4 * number, "precision": "fp32"}
            ledger.append("proposed", trial=number, configuration=number, seed=0, point=point)
            ledger.append("ended", trial=number, status=status, reason=f"why {number}")
        ledger.append("closed", reason="finished")
    with pytest.raises(RunError, match="no trial finished; trial 1: why 1"):
        _run_locked(execution, Versions(), retries=False)
    shown = execution.progress.console.file.getvalue()
    assert "trial 1 diverged: why 1" in shown
    assert "stopped" in shown


def execution_in(folder, **fields):
    sweep = load_sweep(write_sweep(folder, GRID, **fields))
    root = SweepFolder(folder / "s-1")
    root.root.mkdir()
    return Interrupted(SimpleNamespace(sweep=sweep, folder=root, price_of=lambda trial: None))


def write_ledger(folder, closed, *, status="finished"):
    """Write two configurations, of which the second has ended as said."""
    with Ledger(folder.ledger) as ledger:
        ledger.append("opened")
        for number, accuracy in ((1, 0.9), (2, 0.8)):
            point = {"training.learning_rate": 1e-4 * number, "precision": "fp32"}
            ledger.append("proposed", trial=number, configuration=number, seed=0, point=point)
            ledger.append("started", trial=number)
            usage = {"num_steps": 1, "tokens": 1, "train_seconds": 1.0,
                     "peak_memory_bytes": None, "energy_joules": None}  # fmt: skip
            end = {"status": "finished", "reason": None, "metrics": {"accuracy": accuracy},
                   "usage": usage, "incidents": [], "weights": "weights.safetensors"}  # fmt: skip
            if number == 1 or status == "finished":
                ledger.append("reported", trial=number, stop=False, end=end)
            ledger.append(
                "ended", trial=number, status="finished" if number == 1 else status, reason="why"
            )
            folder.trial(number).mkdir()
            (folder.trial(number) / "weights.safetensors").touch()
        ledger.append("closed", reason=closed)


def test_results_of_an_earlier_driver_do_not_outlive_the_next_one(tmp_path):
    execution = execution_in(tmp_path)
    folder = execution.prepared.folder
    write_ledger(folder, "the budget of 1 hours is used up")
    folder.results.write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        _run_locked(execution, Versions(), retries=False)
    assert not folder.results.exists()


@pytest.mark.parametrize(("status", "left"), [("finished", False), ("failed", True)])
def test_weights_stay_while_a_trial_may_still_make_another_one_the_best(tmp_path, status, left):
    execution = execution_in(tmp_path)
    folder = execution.prepared.folder
    write_ledger(folder, "finished", status=status)
    folder.result.write_text('{"trial": 1, "model": "tiny", "digest": "d"}')
    folder.results.write_text("{}")
    result = _run_locked(execution, Versions(), retries=False)
    assert result.version.digest == "d"
    assert (folder.trial(1) / "weights.safetensors").exists()
    assert (folder.trial(2) / "weights.safetensors").exists() == left
