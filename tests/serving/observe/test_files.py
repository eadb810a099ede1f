"""Log lines and captures on disk: whole lines, closed files, no text that is not masked."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time

import pytest

from in_process import SERVED
from kovar.serving.exchange import Exchange
from kovar.serving.guards import Guards
from kovar.serving.observe import (
    AccessLog,
    Capture,
    CaptureSettings,
    JsonLines,
    LogLines,
    ObserveSettings,
)
from kovar.serving.observe.capture import FILES
from kovar.serving.observe.retention import Retention
from kovar.serving.spec import ServingSpec


def records(folder, pattern="*.jsonl*"):
    lines = [
        line for path in sorted(folder.glob(pattern)) for line in path.read_text().splitlines()
    ]
    return [json.loads(line) for line in lines]


def test_lines_are_whole_and_their_file_is_the_owners_alone(tmp_path):
    lines = JsonLines(tmp_path / "logs" / "a.jsonl", max_bytes=1_000, num_files=2)
    for number in range(3):
        lines.write({"number": number, "text": "é\n"})
    assert records(tmp_path / "logs") == [{"number": n, "text": "é\n"} for n in range(3)]
    assert stat.S_IMODE(lines.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(lines.path.parent.stat().st_mode) == 0o700


def test_a_file_is_closed_at_its_size_and_the_oldest_go(tmp_path):
    lines = JsonLines(tmp_path / "a.jsonl", max_bytes=100, num_files=2)
    for number in range(100):
        lines.write({"number": number, "padding": "x" * 20})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.jsonl",
        "a.jsonl.1",
        "a.jsonl.2",
    ]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    assert json.loads(lines.path.read_text().splitlines()[-1])["number"] == 99


def test_a_disk_that_is_gone_loses_lines_and_raises_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    lines = JsonLines(tmp_path / "file" / "a.jsonl", max_bytes=100, num_files=1)
    for _ in range(5):
        lines.write({})
    assert lines.num_lost == 5
    assert caplog.text.count("cannot be written") == 1


def test_a_lost_line_is_told_where_messages_are_lines_of_the_same_file(tmp_path):
    (tmp_path / "file").write_text("")
    lines = JsonLines(tmp_path / "file" / "a.jsonl", max_bytes=100, num_files=1)
    logger, handler = logging.getLogger("kovar"), LogLines(lines)
    logger.addHandler(handler)
    try:
        writer = threading.Thread(target=lines.write, args=({},), daemon=True)
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        assert lines.num_lost == 2
    finally:
        logger.removeHandler(handler)


def test_the_access_log_has_no_texts(tmp_path):
    log = AccessLog(JsonLines(tmp_path / "a.jsonl", max_bytes=10_000, num_files=1))
    exchange = Exchange(request_id="r1", route="/v1/predict", status=200, texts=["xyzzy"])
    log.write(exchange, seconds=0.0123, input_digest="ab")
    (record,) = records(tmp_path)
    assert (record["request_id"], record["outcome"], record["total_ms"]) == ("r1", "answered", 12.3)
    assert "xyzzy" not in json.dumps(record)


def captured(folder, exchanges, **settings):
    settings = CaptureSettings(**({"share": 1.0} | settings))
    capture = Capture(settings, folder, name="r", max_file_bytes=100_000, draw=lambda: 0.5)
    for exchange in exchanges:
        capture.offer(exchange)
    capture.close()
    return records(folder, "capture-*")


def test_a_captured_text_is_masked_before_it_is_written(tmp_path):
    exchange = Exchange(
        request_id="r1", texts=["ask a@b.org", ("x", "10.0.0.1")], labels=["p", "n"]
    )
    (record,) = captured(tmp_path, [exchange])
    assert record["texts"] == ["ask [EMAIL]", ["x", "[IP]"]]
    assert record["labels"] == ["p", "n"]
    assert record["masked"] == {"EMAIL": 1, "IP": 1}
    assert record["request_id"] == "r1"


def test_only_the_share_is_kept_and_no_refused_request(tmp_path):
    answered = Exchange(texts=["fine"])
    assert captured(tmp_path, [answered], share=0.5) == []
    assert captured(tmp_path, [Exchange(texts=["fine"], code="queue_full")]) == []
    assert len(captured(tmp_path, [answered], share=0.51)) == 1


def test_a_long_text_is_cut_after_it_was_masked(tmp_path):
    (record,) = captured(tmp_path, [Exchange(texts=["jane@example.org"])], max_characters=4)
    assert record["texts"] == ["[EMA"]


def test_a_text_that_cannot_be_masked_is_not_written(tmp_path, caplog):
    assert captured(tmp_path, [Exchange(texts=[7])]) == []
    assert "a sample was not kept: TypeError" in caplog.text


def test_samples_that_wait_are_bounded_in_bytes_and_those_without_room_are_counted(tmp_path):
    writing, resumed = threading.Event(), threading.Event()

    class Slow(str):
        def isascii(self) -> bool:
            writing.set()
            return resumed.wait(10)

    settings = CaptureSettings(share=1.0)
    options = {"name": "r", "max_file_bytes": 100_000, "max_waiting_bytes": 2_500}
    capture = Capture(settings, tmp_path, draw=lambda: 0.5, **options)
    capture.offer(Exchange(texts=[Slow("x" * 1_000)]))
    assert writing.wait(10)
    for _ in range(3):
        capture.offer(Exchange(texts=["y" * 1_000]))
    assert capture.num_dropped == 2
    resumed.set()
    capture.close()
    assert len(records(tmp_path, "capture-*")) == 2
    assert capture._waiting_bytes == 0


@pytest.mark.parametrize(("age_days", "is_kept"), [(29, True), (31, False)])
def test_captures_go_after_their_days(tmp_path, age_days, is_kept):
    old = tmp_path / "capture-2020-01-01-other.jsonl"
    old.write_text("{}\n")
    moment = time.time() - age_days * 86_400
    os.utime(old, (moment, moment))
    Retention(tmp_path, {FILES: 30}).close()
    assert old.exists() == is_kept


@pytest.mark.parametrize("name", ["capture-2020-01-01-other.jsonl", "access-other.jsonl.1"])
def test_files_of_replicas_that_are_gone_go_even_where_nothing_is_captured(tmp_path, name):
    old, recent = tmp_path / name, tmp_path / f"{name}.2"
    for path in (old, recent):
        path.write_text("{}\n")
    moment = time.time() - 40 * 86_400
    os.utime(old, (moment, moment))
    spec = ServingSpec(model="m", observe=ObserveSettings(folder=str(tmp_path)))
    Guards(spec, (SERVED,), name="r1", folder=None, sink=None).close()
    assert not old.exists()
    assert recent.exists()


def test_files_that_become_old_while_a_replica_runs_go_too(tmp_path):
    retention = Retention(tmp_path, {FILES: 30}, every_s=0.01)
    old = tmp_path / "capture-2020-01-01-other.jsonl"
    old.write_text("{}\n")
    os.utime(old, (0, 0))
    assert any(not old.exists() or threading.Event().wait(0.01) for _ in range(1_000))
    retention.close()


def test_a_replica_whose_quiet_log_was_removed_begins_it_anew(tmp_path):
    lines = JsonLines(tmp_path / "a.jsonl", max_bytes=1_000, num_files=1)
    lines.write({"number": 1})
    lines.path.unlink()
    lines.write({"number": 2})
    assert records(tmp_path) == [{"number": 2}]
