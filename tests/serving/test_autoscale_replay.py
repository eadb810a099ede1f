from __future__ import annotations

import json
import math

import pytest
from typer.testing import CliRunner

from kovar.cli.app import app
from kovar.errors import SpecError, exit_code_of
from kovar.serving.autoscaling.policy import Rules
from kovar.serving.autoscaling.replay import ReplicaSpeed, replay
from kovar.serving.autoscaling.trace import Trace, read_trace

RULES = Rules(
    min_replicas=1,
    max_replicas=6,
    latency_objective_s=0.5,
    upscale_delay_s=5.0,
    downscale_delay_s=120.0,
    to_zero_delay_s=300.0,
)
SPEED = ReplicaSpeed(tokens_per_s=1000.0, light_s=0.01, start_s=8.0)
SERVE = """
applications:
  - name: tiny
    import_path: kovar.serving.app:build
    args: {model: tiny, num_replicas: {min: 1, max: 4}}
"""


def steady(tokens: float, seconds: int) -> Trace:
    return Trace([tokens / 10] * seconds, [tokens] * seconds)


def joined(*traces: Trace) -> Trace:
    return Trace(
        [one for trace in traces for one in trace.requests],
        [one for trace in traces for one in trace.tokens],
    )


def test_light_traffic_keeps_one_replica_and_answers_in_a_batch():
    result = replay(steady(100, 600), RULES, SPEED)
    assert set(result.running) == {1}
    assert result.latency(0.99) == pytest.approx(0.01, rel=0.3)
    assert result.replica_hours == pytest.approx(600 / 3600)


def test_a_rise_brings_replicas_after_the_delay_and_the_start_and_the_queue_drains():
    result = replay(joined(steady(100, 60), steady(3000, 240)), RULES, SPEED)
    assert result.running[60 + 5] == 1
    assert result.running[60 + 25] >= 4
    assert result.latency_at(75, 0.99) > 1.0
    assert result.latency_at(299, 0.99) < RULES.latency_objective_s
    assert result.num_flaps == 0


def test_a_bounded_queue_refuses_and_keeps_the_latency_bounded():
    speed = ReplicaSpeed(1000.0, 0.01, start_s=1e9, max_queued_tokens=500.0)
    result = replay(steady(2000, 100), RULES, speed)
    assert sum(result.refused) == pytest.approx(sum(result.requests) / 2, rel=0.05)
    assert result.latency(0.99) < 2.0


def test_the_first_request_after_a_sleep_waits_for_a_replica():
    sleepy = Rules(0, 6, 0.5, 5.0, 60.0, 120.0)
    trace = joined(steady(100, 60), steady(0, 400), steady(100, 60))
    result = replay(trace, sleepy, SPEED)
    assert min(result.running) == 0
    assert result.latency_at(460, 0.5) >= SPEED.start_s


def test_a_policy_without_delays_flaps_and_the_replay_counts_it():
    restless = Rules(1, 6, 0.5, 0.0, 0.0, 0.0)
    waves = joined(*[steady(tokens, 40) for tokens in (3000, 100) * 10])
    assert replay(waves, restless, SPEED).num_flaps > 5
    assert replay(waves, RULES, SPEED).num_flaps == 0


def test_rows_without_counts_are_single_requests(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("time,tokens\n100.2,10\n100.4,20\n102.5,30\n")
    assert read_trace(path) == Trace([2.0, 0.0, 1.0, 0.0], [30.0, 0.0, 30.0, 0.0])


def test_counted_rows_are_spread_until_the_next(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("time,requests\n2026-05-03T10:00:00,4\n2026-05-03T10:00:02,6\n")
    trace = read_trace(path)
    assert trace.requests == [2.0, 2.0, 3.0, 3.0]
    assert trace.tokens_per_request == 32.0


@pytest.mark.parametrize(
    ("text", "field", "line"),
    [
        ("time\n5\n4\n", "time", 3),
        ("time\nnoon\n", "time", 2),
        ("time,requests\n1,-1\n", "requests", 2),
        ("time,tokens\n1,nan\n", "tokens", 2),
        ("time\n-1e308\n1e308\n", "time", 2),
        ("time,requests\n1,1e308\n", "requests", 2),
        ("when\n1\n", None, 1),
        ("time\n", None, None),
        ("time\n0\n4000000\n", None, None),
    ],
)
def test_a_mistake_in_a_trace_names_its_line(tmp_path, text, field, line):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(SpecError) as refusal:
        read_trace(path)
    assert refusal.value.context["field"] == field
    assert refusal.value.context["line"] == line


@pytest.fixture
def files(tmp_path):
    (tmp_path / "trace.csv").write_text("time,requests,tokens\n0,100,20\n60,40000,20\n120,100,20\n")
    (tmp_path / "serve.yaml").write_text(SERVE)
    return [str(tmp_path / "trace.csv"), "--spec", str(tmp_path / "serve.yaml")]


def command(*arguments: str):
    return CliRunner().invoke(app, ["autoscale", "replay", *arguments])


def test_the_command_prints_facts_and_draws_them(files, tmp_path):
    picture = tmp_path / "replay.png"
    run = command(*files, "--tokens-per-s", "9000", "--png", str(picture), "--json")
    facts = json.loads(run.stdout)
    assert (facts["seconds"], facts["max_running"], facts["flaps"]) == (180, 2, 0)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_fails_when_what_was_asserted_does_not_hold(files):
    run = command(*files, "--tokens-per-s", "9000", "--assert-flaps", "0", "--assert-p99-ms", "1")
    assert run.exit_code == 1
    assert "p99_ms" in run.stderr
    assert "flaps" not in run.stderr


def test_an_application_that_the_file_does_not_have_is_a_mistake(files):
    def ask() -> int:
        arguments = ["autoscale", "replay", *files, "--tokens-per-s", "9", "--app", "tyni"]
        return int(app(arguments, standalone_mode=False) or 0)

    assert exit_code_of(ask) == 2


def test_requests_that_no_replica_ever_answers_have_no_latency():
    never = ReplicaSpeed(1000.0, 0.01, start_s=1e9)
    asleep = Rules(0, 1, 0.5, 5.0, 1.0, 2.0)
    result = replay(joined(steady(0, 50), steady(100, 50)), asleep, never)
    assert math.isinf(result.latency(0.99))
