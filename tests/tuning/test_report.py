"""The ranked table of a sweep."""

import io
import json

from rich.console import Console

from kovar.tuning import SweepReport, TrialOutcome
from tiny_sweep import GRID, sweep_spec


def outcome(number, accuracy):
    point = {"training.learning_rate": 1e-4 * number, "precision": "fp32"}
    if accuracy is None:
        return TrialOutcome(number, point, "failed", {}, None, 0.0, "step 3: loss nan")
    scores = {"accuracy": accuracy, "macro_f1": accuracy}
    return TrialOutcome(number, point, "finished", scores, "fp32", 1.0)


def report(*accuracies):
    outcomes = tuple(outcome(n, a) for n, a in enumerate(accuracies, start=1))
    return SweepReport(sweep_spec(GRID), outcomes)


def test_the_best_comes_first_and_a_failed_trial_last():
    found = report(0.5, 0.9, 0.4, None)
    assert [o.number for o in found.ranked] == [2, 1, 3, 4]
    assert found.best.number == 2
    assert found.num_failed == 1


def test_equal_trials_rank_by_their_number():
    assert [o.number for o in report(0.5, 0.5).ranked] == [1, 2]


def test_a_sweep_whose_trials_all_failed_has_no_best():
    assert report(None, None).best is None


def test_the_table_names_why_a_trial_failed():
    shown = io.StringIO()
    Console(width=100, file=shown).print(report(0.5, None).table())
    assert "trial 2 failed: step 3: loss nan" in shown.getvalue()


def test_the_report_has_a_json_form():
    rows = json.loads(json.dumps(report(0.5, 0.9).to_json()))["trials"]
    assert [(row["rank"], row["number"]) for row in rows] == [(1, 2), (2, 1)]
