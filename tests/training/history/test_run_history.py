"""What a folder tells of its run: attempts, failures, metrics, speed, what stands out."""

import pytest

from kovar.training.folder import RunFolder
from kovar.training.history import findings, read_history, why_ended
from story import CRASHED, UNDISTURBED, started, step, told, write_story


@pytest.fixture
def history_of(tmp_path):
    def read(events, *, lives=False, **files):
        folder = write_story(tmp_path / "tiny-0123456789", events, **files)
        return read_history(folder, lives=lives)

    return read


def test_an_undisturbed_run_has_one_attempt_that_finished(history_of):
    history = history_of(UNDISTURBED)
    (attempt,) = history.attempts
    assert (attempt.outcome, attempt.last_step, attempt.num_repeated) == ("finished", 20, 0)
    assert (history.status, history.model, history.kind) == ("finished", "tiny", "finetune")
    assert why_ended(history) is None


def test_a_crash_ends_an_attempt_and_the_next_one_tells_what_it_cost(history_of):
    first, second = history_of(CRASHED, lives=True).attempts
    assert (first.outcome, first.last_step, first.lost_s) == ("crashed", 30, 86 - 34)
    assert (second.outcome, second.resumed_from, second.num_repeated) == ("running", 10, 20)


def test_an_attempt_that_is_resumed_where_the_last_one_ended_repeats_nothing(history_of):
    resumed = CRASHED[12] | {"step": 30}
    first, second = history_of([*CRASHED[:12], resumed, step(76, 40, attempt=2)]).attempts
    assert second.num_repeated == 0
    assert first.lost_s == 66 - 34


def test_what_stands_out_names_the_crash_and_the_checkpoint_that_was_ignored(history_of):
    told = " ".join(one.what for one in findings(history_of(CRASHED, lives=True)))
    assert "attempt 1 crashed after step 30; attempt 2 went on from step 10" in told
    assert "repeated 20 steps and lost 52 s" in told
    assert "step-20: torn" in told


def test_the_metrics_are_the_final_ones_and_the_best_are_remembered(history_of):
    history = history_of(UNDISTURBED)
    assert history.metrics == {"accuracy": 0.81, "macro_f1": 0.8}
    assert history.best == (20, {"accuracy": 0.8, "loss": 0.4})


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("perplexity", (9.0, 4.0, 6.0), 20),
        ("entity_f1", (0.1, 0.9, 0.8), 20),
        ("loss", (3, 2, 1), 30),
    ],
)
def test_a_run_is_judged_by_the_metric_that_it_names(history_of, metric, values, best):
    events = [started(0, metric=metric)] + [
        told(10 * n, "evaluated", rank=0, step=10 * n, metrics={metric: value, "x": -n})
        for n, value in enumerate(values, start=1)
    ]
    history = history_of(events)
    assert history.best[0] == best
    assert history.score == (metric, values[-1])


def test_repeated_steps_count_once_in_the_speed(history_of):
    speed = history_of(CRASHED).throughput
    assert speed.tokens_per_s == 90
    assert speed.padding == pytest.approx(0.1)
    assert speed.flops_per_s is None


def test_the_share_of_the_peak_is_that_of_all_chips(history_of):
    begin = started(0, flops_per_token=2e9, peak_flops=1e12, world_size=4)
    speed = history_of([begin, step(10, 10)]).throughput
    assert speed.flops_per_s == pytest.approx(2e9 * 90)
    assert speed.peak_share == pytest.approx(2e9 * 90 / 4e12)


def test_the_cost_counts_the_time_in_which_something_ran(history_of):
    again = [{**told(1000, "queued", spec="tiny", kind="finetune")}, told(1010, "planned")]
    history = history_of([*UNDISTURBED[:-1], *again], plan={"cost": {"per_hour": 36.0}})
    assert history.dollars == pytest.approx((73 + 8 + 10) * 0.01)


def test_without_a_price_in_the_plan_there_is_no_cost(history_of):
    assert history_of(UNDISTURBED).dollars is None


FAILURES = {
    "memory": ("RunError", "rank 1: CUDA out of memory. Tried to allocate", "max_tokens"),
    "numbers": ("NonFiniteError", "step 7: loss nan", "learning_rate"),
    "disk": ("OSError", "[Errno 28] No space left on device", "free space"),
    "hardware": ("RunError", "the worker group startup timed out", "kovar plan"),
    "workers": ("RunError", "rank 0: The actor died unexpectedly", "max_failures"),
    "unknown, with a hint of its own": ("RunError", "odd\n  → ask Ann", "ask Ann"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_says_what_to_do(history_of, case):
    error, message, advice = FAILURES[case]
    failed = told(90, "failed", error=error, message=message)
    why = why_ended(history_of([*UNDISTURBED[:8], failed]))
    assert why.what.startswith(f"{error}: ")
    assert "→" not in why.what
    assert advice in why.advice


def test_a_driver_that_was_killed_is_told_with_the_checkpoint_to_go_on_from(history_of):
    why = why_ended(history_of(UNDISTURBED[:10]))
    assert "killed" in why.what
    assert why.advice.endswith("it resumes from step 10")


def test_a_run_that_waits_long_for_hardware_is_told(history_of):
    waited = [*UNDISTURBED[:4], told(400, "placed", num_workers=2, nodes=["a"])]
    (found,) = findings(history_of(waited))
    assert found.what == "placing took 97% of the time"


def test_evaluating_all_the_time_is_told_with_the_setting(history_of):
    events = [started(0), step(10, 10), told(200, "evaluated", rank=0, step=10, seconds=190,
              metrics={"accuracy": 0.5})]  # fmt: skip
    spec = {"training": {"evaluate_every": 10}}
    assert "evaluate_every (now 10)" in findings(history_of(events, spec=spec))[0].advice


def test_much_padding_is_told(history_of):
    assert "30% of the tokens" in findings(history_of([step(10, 10, padding=0.3)]))[0].what


def test_damaged_files_tell_nothing_and_break_nothing(history_of, tmp_path):
    folder = write_story(tmp_path / "r", UNDISTURBED)
    for path in (folder.spec, folder.plan, folder.result):
        path.write_text("{torn")
    with folder.events.open("ab") as log:
        log.write(b'{"event": "step"}\n{"event": "step", "time": 3}\n[]\n{"v": 1, "ev')
    history = read_history(folder)
    assert history.status == "finished"
    assert history.to_json()["seconds"] == 83


def test_a_folder_without_a_log_is_a_run_that_never_began(tmp_path):
    history = read_history(RunFolder(tmp_path))
    assert history.started_at is None
    assert history.timeline.total_s == 0
    assert history.to_json()["metrics"] == {}
