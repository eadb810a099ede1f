"""What is seen of a sweep while it runs."""

import io

from rich.console import Console

from kovar.tuning.live import LiveSweep, running_table, status_of, summary
from kovar.tuning.spending import Allowance
from tiny_conductor import Clock, conductor_in, finish, report, start
from tiny_sweep import sweep_spec

SPEC = sweep_spec(
    {"training.learning_rate": {"kind": "grid", "values": [1e-4, 1e-3]}},
    metric="accuracy", mode="max", select="best",
)  # fmt: skip
POINTS = [{"training.learning_rate": 1e-4}, {"training.learning_rate": 1e-3}]


def status(conductor, clock):
    return status_of(conductor.state, SPEC, num_trials=4, price=conductor.price_of, now=clock.now)


def test_a_sweep_is_summed_up_in_a_line(tmp_path):
    clock = Clock()
    conductor = conductor_in(tmp_path, POINTS, clock=clock)
    start(conductor), start(conductor)
    clock.now += 100
    report(conductor, 2, 10, 0.6)
    finish(conductor, 1, 0.75)
    clock.now += 50
    line = summary(status(conductor, clock), SPEC, Allowance(cost=20.0))
    assert line == (
        "1/4 trials: 1 running, 1 finished · best accuracy 0.7500 (trial 1) · 2 min 30 s so far · "
        "about 2 min 30 s left · $2.5000 of $20.00"
    )


def test_trials_that_diverged_or_were_stopped_are_not_the_best(tmp_path):
    clock = Clock()
    conductor = conductor_in(tmp_path, POINTS, clock=clock)
    for number, how in [(start(conductor), "diverged"), (start(conductor), "stopped")]:
        report(conductor, number, 10, 0.9)
        conductor.ended(number, how)
    assert status(conductor, clock).best is None


def test_what_runs_is_shown_in_a_table(tmp_path):
    conductor = conductor_in(tmp_path, POINTS)
    start(conductor)
    report(conductor, 1, 10, 0.6, node="worker-a", chip="cpu", num_steps=30)
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(running_table(conductor.state, SPEC, conductor.now))
    shown = console.file.getvalue()
    for word in ("learning_rate", "0.0001", "10/30", "0.6000", "worker-a"):
        assert word in shown


def test_without_a_terminal_each_end_is_a_line(tmp_path):
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    live = LiveSweep(SPEC, console, 2)
    conductor = conductor_in(tmp_path, POINTS, listen=live.hear)
    finish(conductor, start(conductor), 0.75)
    conductor.ended(start(conductor), "failed", "its process died")
    with live.showing():
        live.look(conductor.state, conductor.price_of, conductor.now)
    assert console.file.getvalue().splitlines()[:2] == [
        "  trial 1 (learning_rate 0.0001): finished, accuracy 0.7500",
        "  trial 2 (learning_rate 0.001): failed: its process died",
    ]
