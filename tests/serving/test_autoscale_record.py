"""Traces from access logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kovar.cli.app import app
from kovar.errors import SpecError
from kovar.serving.autoscaling.recorded import read_recording
from kovar.serving.autoscaling.trace import read_trace

BEGIN = "2026-03-02T10:00:{:06.3f}+00:00"


def line(second: float, *, tokens: int | None = 10, route: str = "/v1/predict", **fields) -> str:
    record = {
        "time": BEGIN.format(second),
        "kind": "request",
        "method": "POST",
        "route": route,
        "num_tokens": tokens,
        "total_ms": 5.0,
    }
    return json.dumps(record | fields) + "\n"


def log(folder: Path, name: str, *lines: str) -> Path:
    path = folder / f"access-{name}.jsonl"
    path.write_text("".join(lines))
    return path


def test_requests_of_all_replicas_count_in_the_second_they_came(tmp_path):
    first = log(tmp_path, "a", line(1.5), line(2.001, tokens=20), line(9.5, tokens=40))
    second = log(tmp_path, "b", line(1.7, tokens=20, route="/v2/models/{model}/infer"))
    found = read_recording([first, second])
    assert found.num_requests == 4
    # The request that ended at 2.001 s came 5 ms before; from 2 to 9 s there was a pause.
    assert [(at - found.begin, number) for at, number, _ in found.rows] == [
        (0, 3),
        (1, 0),
        (8, 1),
        (9, 0),
    ]
    csv = tmp_path / "day.csv"
    found.write(csv)
    trace = read_trace(csv)
    assert trace.requests[:9] == [3.0, *[0.0] * 7, 1.0]
    assert sum(trace.requests) == 4.0
    assert trace.tokens[:9] == pytest.approx([50.0, *[0.0] * 7, 40.0], abs=0.2)


def test_a_refused_request_counts_with_the_mean_length(tmp_path):
    path = log(tmp_path, "a", line(1, tokens=30), line(1, tokens=10), line(3, tokens=None))
    assert read_recording([path]).rows[-2][1:] == (1, 20.0)


def test_what_asks_no_model_and_messages_of_the_log_do_not_count(tmp_path):
    path = log(
        tmp_path,
        "a",
        line(1),
        line(1, route="/v2/health/ready"),
        line(1, route=None),
        json.dumps({"kind": "log", "message": "started"}) + "\n",
    )
    assert read_recording([path]).num_requests == 1


def test_a_last_line_that_is_being_written_is_left_out(tmp_path):
    path = log(tmp_path, "a", line(1), line(2)[:40])
    assert read_recording([path]).num_requests == 1


def test_another_file_is_refused_by_line(tmp_path):
    path = log(tmp_path, "a", line(1), "time,requests\n", line(2))
    with pytest.raises(SpecError) as refusal:
        read_recording([path])
    assert str(refusal.value).startswith(f"{path}:2")


def test_the_command_writes_what_replay_reads_and_refuses_what_has_no_requests(tmp_path):
    path, csv = log(tmp_path, "a", line(1), line(4)), tmp_path / "day.csv"
    done = CliRunner().invoke(app, ["autoscale", "record", str(path), "--csv", str(csv), "--json"])
    assert json.loads(done.output) == {"seconds": 4, "requests": 2}
    assert sum(read_trace(csv).requests) == 2.0
    empty = log(tmp_path, "b")
    refused = CliRunner().invoke(app, ["autoscale", "record", str(empty), "--csv", str(csv)])
    assert "no requests" in str(refused.exception)
