"""One trial: what it is given, what it tells while it runs, and what it leaves.

A trial of one worker trains in the process that calls `run_trial`, which may have run others
before: each leaves the process as it found it, so a trial's result does not depend on those before
it. One of several workers runs on Ray Train, and
`following` turns its event log into the same news.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kovar.errors import RunError
from kovar.events import EventTail
from kovar.training.folder import RunFolder
from kovar.training.history.incident import incidents
from kovar.training.task import WorkerTask
from kovar.training.trial import END_FILE, Meter, TrialEnd, Usage, drop_weights, isolated
from kovar.tuning.record import Evaluation

if TYPE_CHECKING:
    import torch

    from kovar.events import EventKind

__all__ = [
    "TrialEnd",
    "TrialUpdate",
    "Usage",
    "adopt",
    "drop_checkpoints",
    "drop_weights",
    "finished_before",
    "following",
    "run_trial",
]

_POLL_S: Final = 0.2
_INCIDENTS: Final = ("skipped", "shrunk", "resumed")


@dataclass(frozen=True, slots=True)
class TrialUpdate:
    """News of a trial that runs.

    Args:
        kind: `started`, once in every stay; `evaluated`; `incident`.
        usage: of this stay, up to now.
        text: what happened, of an incident.
        evaluation: its scores, in the precision of the trial.
        facts: of `started`: chip, precision, precision_reason, num_steps (planned), pid.
    """

    kind: Literal["started", "evaluated", "incident"]
    usage: Usage
    text: str | None = None
    evaluation: Evaluation | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Tell = Callable[[TrialUpdate], None]
"""Takes news; what it raises ends the trial, whose checkpoints stay."""


def run_trial(
    task: WorkerTask, *, report: Tell, device: Callable[[], torch.device] | None = None
) -> TrialEnd:
    """Train one trial of one worker in this process; a trial that has ended is returned at once.

    It goes on from the newest checkpoint in its folder.

    Args:
        task: the trial, of the purpose `trial`.
        report: takes its news.
        device: finds the device that it was given; the CPU by default.

    Returns:
        How it ended: crashes, and whatever `report` raises, are raised instead.
    """
    import torch

    from kovar.training.device import rank_device
    from kovar.training.worker import execute

    if (done := finished_before(task.folder)) is not None:
        return done
    (task.folder / END_FILE).unlink(missing_ok=True)
    chosen = rank_device(device or (lambda: torch.device("cpu")))
    with isolated(chosen.type):
        execute(task, device=chosen, observe=_Translator(report).hear)
    return _end_of(task)


def finished_before(folder: Path) -> TrialEnd | None:
    """Return how the trial of a folder ended, unless another start may change it."""
    end = TrialEnd.read(folder)
    return None if end is None or end.status == "failed" else end


def _end_of(task: WorkerTask) -> TrialEnd:
    end = TrialEnd.read(task.folder)
    if end is None:
        raise RunError(f"trial {task.folder.name} ended without a result")
    return end


class _Translator:
    """Turns events of training into news."""

    def __init__(self, report: Tell) -> None:
        self._report = report

    def hear(self, event: EventKind, **fields: Any) -> None:
        """Take an event, among its fields the usage up to it."""
        usage: Usage = fields.pop("usage")
        match event:
            case "started":
                self._report(TrialUpdate("started", usage, facts=_start_facts(fields)))
            case "evaluated" if not fields.get("final"):
                scores = {k: float(v) for k, v in fields["metrics"].items()}
                told = Evaluation(int(fields["step"]), usage.train_seconds, scores)
                self._report(TrialUpdate("evaluated", usage, evaluation=told))
            case _ if event in _INCIDENTS:
                self._report(TrialUpdate("incident", usage, text=_in_words(event, fields)))


def _start_facts(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "chip": fields["chip"],
        "precision": fields["precision"],
        "precision_reason": fields["reason"],
        "num_steps": fields["num_steps"],
        "pid": fields["pid"],
    }


def _in_words(event: EventKind, fields: Mapping[str, Any]) -> str:
    if event == "resumed":
        return f"went on from its checkpoint of step {fields['step']}"
    return next(iter(incidents([{"event": event, "rank": 0, **fields}])), event)


@contextmanager
def following(task: WorkerTask, report: Tell) -> Iterator[None]:
    """Report the news of a trial of several workers while the block runs them on Ray Train.

    `report` is called in the thread that leaves the block and in one of its own, never in both at
    a time; what it raises is raised at the end of the block.
    """
    follower = _Follower(RunFolder(task.folder).events, report)
    thread = threading.Thread(target=follower.run, name="kovar-trial", daemon=True)
    thread.start()
    try:
        yield
    finally:
        follower.ends.set()
        thread.join()
    follower.look()
    if follower.error is not None:
        raise follower.error


class _Follower:
    """Reads an event log as it grows, from where it ends now."""

    def __init__(self, events: Path, report: Tell) -> None:
        self.ends = threading.Event()
        self.error: BaseException | None = None
        self._tail = EventTail(events)
        self._tail.read()
        self._meter, self._translator = Meter(), _Translator(report)

    def run(self) -> None:
        """Look again and again until the block ends."""
        while not self.ends.wait(_POLL_S):
            self.look()

    def look(self) -> None:
        """Report what is new; after an error nothing more."""
        for event in self._tail.read():
            if event["rank"] != 0 or self.error is not None:
                continue
            kind = event.pop("event")
            self._meter.hear(kind, event)
            try:
                self._translator.hear(kind, usage=self._meter.usage(), **event)
            except BaseException as error:  # SystemExit is how Tune stops a trial
                self.error = error


def adopt(folder: Path, donor: Path, *, step: int) -> None:
    """Replace a trial's checkpoints by those of another trial: it goes on from there.

    Args:
        folder: of the trial.
        donor: folder of the other one, of the same model and data.
        step: whose checkpoint is taken, with that of the best step, if the donor holds it.

    Raises:
        CheckpointError: the donor's checkpoint is gone or damaged.
    """
    from kovar.training.checkpoint import CheckpointFolder

    source = CheckpointFolder(RunFolder(donor).checkpoints, keep=1)
    found = source.verified(step)
    best = found.state()["judge"]["best_step"]
    target = RunFolder(folder).checkpoints
    partial = target.with_name(f".{target.name}-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    for name in {found.folder, source.at(best or step).folder}:
        if name.exists():
            # Nobody changes a file of a checkpoint, so both trials may have the same one.
            shutil.copytree(name, partial / name.name, copy_function=_link)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    (folder / END_FILE).unlink(missing_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def drop_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a trial that will not go on, or that nobody will adopt."""
    shutil.rmtree(RunFolder(folder).checkpoints, ignore_errors=True)
