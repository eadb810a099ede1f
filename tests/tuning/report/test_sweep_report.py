"""The ranking of trials and of configurations, and their table."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from kovar.tuning.report import SweepFacts, configurations_of, facts_of
from kovar.tuning.report.configuration import Spread
from kovar.tuning.report.facts import short_names
from swept import FACTS, RATE, report, trial
from tiny_sweep import sweep_spec


def test_the_best_comes_first_and_a_failed_trial_last():
    found = report(trial(1, 0.5), trial(2), trial(3, 0.9), trial(4, 0.4, status="stopped"))
    assert [t.number for t in found.ranked] == [3, 1, 4, 2]
    assert found.best.number == 3
    assert found.num_failed == 1
    assert found.counts == {"finished": 2, "stopped": 1, "failed": 1}


def test_less_is_better_where_the_mode_says_so():
    facts = replace(FACTS, metric="loss", mode="min")
    trials = [trial(n, 0.5, metrics={"loss": loss}) for n, loss in enumerate((0.3, 0.1, 0.2), 1)]
    assert [t.number for t in report(*trials, facts=facts).ranked] == [2, 3, 1]


def test_equal_trials_rank_by_their_number():
    assert [t.number for t in report(trial(2, 0.5), trial(1, 0.5)).ranked] == [1, 2]


def test_a_sweep_whose_trials_all_failed_has_no_best():
    found = report(trial(1), trial(2, status="diverged"))
    assert found.best is None
    assert found.ranked_configurations == []


def test_a_lucky_seed_does_not_win_against_a_better_mean():
    lucky = [trial(1, 0.99, configuration=1), trial(2, 0.1, configuration=1)]
    steady = [trial(3, 0.8, configuration=2), trial(4, 0.85, configuration=2)]
    assert report(*lucky, *steady).best.number == 4


def test_a_configuration_that_lost_a_seed_ranks_behind_complete_ones():
    lost = [trial(1, 0.99, configuration=1), trial(2, configuration=1, status="diverged")]
    found = report(*lost, trial(3, 0.6, configuration=2))
    assert [c.number for c in found.ranked_configurations] == [2, 1]
    assert found.configurations[0].status == "diverged"


def test_a_metric_that_is_not_a_number_is_never_the_best():
    assert report(trial(1, float("nan")), trial(2, 0.1)).best.number == 2


def test_seeds_have_a_mean_and_a_sample_deviation():
    assert Spread.of([1.0, 3.0]) == Spread(2.0, pytest.approx(2**0.5), 2)
    assert Spread.of([1.0]) == Spread(1.0, None, 1)
    assert Spread.of([1.0, None]) is None
    assert Spread.of([]) is None


def test_a_configuration_knows_where_it_ran_and_what_it_cost():
    trials = [trial(n, 0.5, configuration=1, price_per_hour=2.0, wall_seconds=900.0 * n)
              for n in (1, 3)]  # fmt: skip
    (found,) = configurations_of(trials)
    assert found.cost.mean == pytest.approx(1.0)
    assert report(*trials).cost == pytest.approx(2.0)
    assert report(*trials, trial(4, 0.5, wall_seconds=1.0)).cost is None


def test_the_table_names_why_a_trial_has_no_result():
    shown = io.StringIO()
    found = report(trial(1, 0.5), trial(2, reason="step 3: loss nan", status="diverged"))
    Console(width=100, file=shown).print(found.table())
    assert "trial 2 diverged: step 3: loss nan" in shown.getvalue()
    assert "learning_rate" in shown.getvalue()


def test_a_long_table_is_cut_and_says_so():
    shown = io.StringIO()
    Console(width=100, file=shown).print(report(*(trial(n, 0.5) for n in range(1, 46))).table())
    assert "… and 5 more in results.json" in shown.getvalue()


def test_the_report_has_a_json_form():
    rows = json.loads(json.dumps(report(trial(1, 0.5), trial(2, 0.9)).to_json()))["trials"]
    assert [(row["rank"], row["number"]) for row in rows] == [(1, 2), (2, 1)]


def test_facts_come_from_the_spec_and_back_from_json():
    search = {RATE: {"kind": "loguniform", "low": 1e-5, "high": 1e-3},
              "precision": {"kind": "grid", "values": ["fp32", "bf16"]}}  # fmt: skip
    facts = facts_of(sweep_spec(search, metric="loss", mode="min"))
    assert (facts.mode, facts.sign, facts.log_paths) == ("min", -1, {RATE})
    assert SweepFacts.of_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_short_names_stay_clear():
    assert short_names(["training.seed", "data.seed"]) == {
        "training.seed": "seed",
        "data.seed": "data.seed",
    }
    assert short_names(["training.x", "x"]) == {"training.x": "training.x", "x": "x"}
