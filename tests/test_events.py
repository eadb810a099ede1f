"""The event log: appended whole, durable, readable after a crash in the middle of a line."""

import json
import multiprocessing
from typing import get_args

import pytest

from kovar.events import DRIVER_RANK, FIELDS, EventKind, EventLog, EventTail, read_events


def test_every_event_has_time_run_attempt_and_rank(tmp_path):
    with EventLog(tmp_path / "events.jsonl", run="r1", attempt=2, rank=0) as log:
        log.emit("step", step=1, loss=0.5)
    (record,) = read_events(tmp_path / "events.jsonl")
    assert record.pop("time").endswith("+00:00")
    assert record == {
        "v": 1, "run": "r1", "attempt": 2, "rank": 0, "event": "step", "step": 1, "loss": 0.5,
    }  # fmt: skip


def test_a_torn_line_damages_only_itself(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path, run="r") as log:
        log.emit("queued", spec="s", kind="finetune")
    with path.open("ab") as file:
        file.write(b'{"v": 1, "event": "st')
    with EventLog(path, run="r") as log:
        log.emit("failed", error="RunError", message="killed")
    assert [record["event"] for record in read_events(path)] == ["queued", "failed"]


def test_a_tail_returns_what_was_appended_since_and_waits_for_whole_lines(tmp_path):
    path = tmp_path / "e"
    tail = EventTail(path)
    assert tail.read() == []
    with EventLog(path, run="r") as log:
        log.emit("step", step=1)
        assert [record["step"] for record in tail.read()] == [1]
        log.emit("step", step=2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert tail.read() == []
    path.write_bytes(whole)
    assert [record["step"] for record in tail.read()] == [2]


def test_the_driver_is_rank_minus_one(tmp_path):
    with EventLog(tmp_path / "e", run="r") as log:
        log.emit("finished", step=1)
    assert next(read_events(tmp_path / "e"))["rank"] == DRIVER_RANK == -1


def test_unknown_events_and_nan_are_refused(tmp_path):
    with EventLog(tmp_path / "e", run="r") as log:
        with pytest.raises(ValueError, match="unknown event 'stepp'"):
            log.emit("stepp")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="JSON"):
            log.emit("step", loss=float("nan"))
    assert list(read_events(tmp_path / "e")) == []


def test_a_missing_log_has_no_events(tmp_path):
    assert list(read_events(tmp_path / "absent")) == []


def test_every_kind_is_documented():
    assert set(FIELDS) == set(get_args(EventKind))


def _write(path, rank):
    with EventLog(path, run="r", rank=rank) as log:
        for step in range(200):
            log.emit("step", step=step, note="x" * 300)


def test_lines_of_several_processes_do_not_mix(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path / "e", rank)) for rank in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = [line for line in (tmp_path / "e").read_bytes().splitlines() if line]
    assert sorted((r["rank"], r["step"]) for r in map(json.loads, lines)) == [
        (rank, step) for rank in range(3) for step in range(200)
    ]
