"""Whether a run works, waits or has ended."""

import multiprocessing
import os
import socket

import pytest
from filelock import FileLock

from kovar.training.folder import RunFolder, write_json
from kovar.training.heartbeat import SILENT_AFTER_S, beating, read_heartbeat
from kovar.training.history.status import driver_lives, status_of
from story import CRASHED, UNDISTURBED, told

FAILED = told(80, "failed", error="RunError", message="gone")
CASES = {
    "queued": (UNDISTURBED[:2], True, False, "queued"),
    "planned": (UNDISTURBED[:3], True, False, "waiting"),
    "waiting for hardware": (UNDISTURBED[:4], True, False, "waiting"),
    "training": (UNDISTURBED[:8], True, False, "running"),
    "registered": (UNDISTURBED, False, True, "finished"),
    "its driver is gone": (UNDISTURBED[:8], False, False, "interrupted"),
    "failed": ([*UNDISTURBED[:8], FAILED], False, False, "failed"),
    "submitted again after a failure": ([FAILED, UNDISTURBED[0]], True, False, "queued"),
    "given up with Ctrl-C": (
        [*UNDISTURBED[:8], told(80, "failed", error="KeyboardInterrupt", message="")],
        False,
        False,
        "interrupted",
    ),
    "a worker that crashed and came back": (CRASHED, True, False, "running"),
    "a trial of a sweep": ([UNDISTURBED[5], UNDISTURBED[12]], True, False, "finished"),
    "nothing written yet": ([], True, False, "queued"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_status_follows_from_the_log_and_the_driver(case):
    events, lives, complete, expected = CASES[case]
    assert status_of(events, lives=lives, complete=complete) == expected


def test_a_driver_lives_while_it_beats_and_says_when_it_is_done(tmp_path):
    folder = RunFolder(tmp_path)
    with beating(folder.heartbeat):
        assert driver_lives(folder)
    assert read_heartbeat(folder.heartbeat).ended
    assert not driver_lives(folder)


def test_a_driver_of_another_machine_is_believed_until_it_is_silent(tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.heartbeat, {"host": f"not-{socket.gethostname()}", "pid": 1})
    beat = folder.heartbeat.stat().st_mtime
    assert driver_lives(folder, now=beat + SILENT_AFTER_S / 2)
    assert not driver_lives(folder, now=beat + SILENT_AFTER_S * 2)


def test_a_driver_that_was_killed_on_this_machine_is_known_to_be_gone_at_once(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()
    folder = RunFolder(tmp_path)
    write_json(folder.heartbeat, {"host": socket.gethostname(), "pid": process.pid})
    assert not driver_lives(folder)
    write_json(folder.heartbeat, {"host": socket.gethostname(), "pid": os.getpid()})
    assert driver_lives(folder)


def test_without_a_heartbeat_the_lock_tells_and_asking_does_not_take_it(tmp_path):
    folder = RunFolder(tmp_path)
    assert not driver_lives(folder)
    with FileLock(folder.lock, timeout=0):
        assert driver_lives(folder)
    assert not driver_lives(folder)


def test_a_damaged_heartbeat_tells_nothing(tmp_path):
    (tmp_path / "heartbeat.json").write_text('{"host": "a"')
    assert read_heartbeat(tmp_path / "heartbeat.json") is None


def test_a_trial_lives_while_its_sweep_does(tmp_path):
    trial = RunFolder(tmp_path / "trial-0001")
    with beating(RunFolder(tmp_path).heartbeat):
        assert driver_lives(trial)
    assert not driver_lives(trial)
