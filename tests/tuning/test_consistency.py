"""Fields of a sweep that contradict each other: told at the line of the one to change."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kovar.errors import SpecError
from kovar.tuning import load_sweep
from tiny_sweep import GRID, write_sweep

RATE = {"training.learning_rate": {"kind": "loguniform", "low": 1e-5, "high": 1e-2}}
OPTIMIZER = {"training.optimizer": {"kind": "choice", "values": ["adamw", "sgd"]}}


def momentum(**when: Any) -> dict[str, Any]:
    dimension = {"kind": "uniform", "low": 0.0, "high": 0.9, "when": when.get("when")}
    return {"training.optimizer.momentum": dimension}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("consistent")


CASES: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    (momentum(when={"training.optimiser": "sgd"}) | OPTIMIZER, {}, "when", "did you mean"),
    (momentum(when={"training.optimizer": "sgdm"}) | OPTIMIZER, {}, "when", "adamw, sgd"),
    (
        {
            "a": {"kind": "grid", "values": [1, 2], "when": {"b": 1}},
            "b": {"kind": "grid", "values": [1, 2], "when": {"a": 1}},
        },
        {},
        "when",
        "a → b → a",
    ),
    (
        {"precision": {"kind": "grid", "values": ["fp32"], "when": {"training.optimizer": "sgd"}}}
        | OPTIMIZER,
        {},
        "when",
        "other grids alone",
    ),
    (RATE, {"searcher": "grid"}, "search.training.learning_rate", "no end of them"),
    (GRID, {"num_samples": 3}, "num_samples", "seeds: 3"),
    (RATE, {"searcher": "tpe"}, "num_samples", "num_samples: 30"),
    (RATE, {"warm_start": "earlier"}, "warm_start", "searcher: tpe"),
    (RATE, {"warm_start": "earlier", "searcher": "tpe", "num_samples": 9}, "warm_start", "results"),
    ({"training.seed": GRID["training.learning_rate"]}, {"seeds": 2}, "seeds", "leave one"),
    (RATE, {"seeds": 2, "scheduler": "pbt"}, "seeds", "allowed: 1"),
    (GRID, {"scheduler": "pbt"}, "scheduler", "training.dropout"),
    (RATE, {"scheduler": "pbt"}, "num_samples", "there is one alone"),
    (RATE, {"scheduler": {"kind": "asha", "reduction_factor": 1.001}}, "reduction_factor", "than"),
    (
        RATE | {"resources.worker.cpus": {"kind": "grid", "values": [1, 2]}},
        {"scheduler": "pbt"},
        "search.resources.worker.cpus",
        "change its hardware",
    ),
    (RATE, {"scheduler": "hyperband"}, "scheduler", "max_evaluations"),
    (RATE, {"num_samples": 101, "seeds": 100}, "num_samples", "at most 10,000"),
    (RATE, {"metric": "accurcy"}, "metric", 'did you mean "accuracy"'),
    (RATE, {"mode": "min"}, "mode", "better when it is larger"),
    (RATE, {"metric": "loss", "mode": "max"}, "mode", "better when it is smaller"),
    (RATE, {"objectives": ["accuracy"]}, "objectives", "one objective is the metric"),
    (RATE, {"objectives": ["cost", "wall_seconds"]}, "objectives", "is a metric"),
    (RATE, {"objectives": ["accuracy", "price"]}, "objectives[1]", "wall_seconds, cost"),
    (RATE, {"overrides": {"training.keep_best": True}}, "overrides", "own select"),
    (RATE, {"max_concurrent": 0}, "max_concurrent", "auto"),
    (momentum(when={"training.optimizer": []}) | OPTIMIZER, {}, "when", "never vary"),
    ({"training": {"kind": "grid", "values": [{"epochs": 2}]}}, {}, "search", "one by one"),
    ({"task": {"kind": "grid", "values": [["a"]]}}, {}, "search.task", "['a']"),
    (
        {"task": {"kind": "grid", "values": ["token-classification"]}},
        {"metric": "f1"},
        "metric",
        "text-classification does not have",
    ),
    (
        {"training.seed": {"kind": "integer", "low": 0, "high": 10**15}},
        {"searcher": "grid"},
        "search",
        "1,000,000,000,000,001",
    ),
    (
        {"resources.worker.cpus": {"kind": "integer", "low": 1, "high": 4}},
        {"searcher": "tpe", "num_samples": 9},
        "search.resources.worker.cpus",
        "kind: choice or grid",
    ),
]


@pytest.mark.parametrize(("search", "fields", "field", "says"), CASES)
def test_a_contradiction_is_told_where_it_can_be_mended(folder, search, fields, field, says):
    with pytest.raises(SpecError) as refusal:
        load_sweep(write_sweep(folder, search, **fields))
    assert says in str(refusal.value)
    assert field in (refusal.value.field or "")


@pytest.mark.parametrize("value", [".inf", ".nan", "{low: -.inf}"])
def test_a_value_without_a_json_form_is_refused_at_its_line(folder, value):
    path = write_sweep(folder, {})
    listed = f"  training.max_gradient_norm: {{kind: choice, values: [1.0, {value}]}}"
    path.write_text(f"kind: sweep\nname: s\nbase: spec.yaml\nsearch:\n{listed}\n")
    with pytest.raises(SpecError, match="not finite") as refusal:
        load_sweep(path)
    assert refusal.value.context["line"] == 5


def test_a_wrong_condition_is_told_at_its_own_line(folder):
    path = write_sweep(folder, momentum(when={"training.optimizer": "sgdm"}) | OPTIMIZER)
    with pytest.raises(SpecError) as refusal:
        load_sweep(path)
    assert "sgdm" in path.read_text().splitlines()[refusal.value.context["line"] - 1]


def test_the_ends_of_ranges_are_held_against_the_fields_before_any_draw(folder):
    search = {"training.label_smoothing": {"kind": "uniform", "low": 0.0, "high": 1.0}}
    with pytest.raises(SpecError, match=r"training.label_smoothing: .* less than 1") as refusal:
        load_sweep(write_sweep(folder, search, num_samples=2))
    assert refusal.value.context["got"] == "1.0"


def test_a_mistake_of_two_fields_together_names_both(folder):
    search = {
        "training.weights": {"kind": "grid", "values": ["fp32", "bf16"]},
        "training.ema_decay": {"kind": "grid", "values": [None, 0.99]},
    }
    with pytest.raises(SpecError, match=r"ema_decay needs weights: fp32.*with training.ema_decay"):
        load_sweep(write_sweep(folder, search))


def test_a_condition_keeps_fields_from_meeting_that_do_not_agree(folder):
    when = {"training.optimizer": "sgd"}
    path = write_sweep(folder, OPTIMIZER | momentum(when=when), num_samples=6)
    kinds = {
        (trial.spec.training.optimizer.kind, "training.optimizer.momentum" in trial.point)
        for trial in load_sweep(path).trials
    }
    assert kinds == {("adamw", False), ("sgd", True)}


def test_the_base_may_stand_in_the_sweep_and_its_mistakes_have_their_lines(folder):
    path = write_sweep(folder, RATE)
    base = json.loads((folder / "spec.yaml").read_text())
    assert load_sweep(write_sweep(folder, RATE, base=base)).trials[0].spec.name == "tiny"
    base["training"]["epoch"] = 3
    write_sweep(folder, RATE, base=base)
    with pytest.raises(SpecError, match=r"training.epoch: unknown key") as refusal:
        load_sweep(path)
    line = path.read_text().splitlines()[refusal.value.context["line"] - 1]
    assert '"epoch": 3' in line


def test_what_is_left_to_the_task_is_decided(folder):
    spec = load_sweep(write_sweep(folder, RATE)).spec
    assert (spec.metric, spec.mode, spec.select) == ("accuracy", "max", "last")
    sweep = load_sweep(write_sweep(folder, RATE, metric="loss", select="best"))
    assert (sweep.spec.mode, sweep.trials[0].spec.training.metric) == ("min", "loss")
    assert sweep.trials[0].spec.training.keep_best


def test_a_searcher_that_learns_hears_of_most_trials_before_the_last_begin(folder):
    fields = {"searcher": "tpe", "num_samples": 20}
    assert load_sweep(write_sweep(folder, RATE, **fields)).spec.limit == 5
    assert load_sweep(write_sweep(folder, RATE, max_concurrent=9, **fields)).spec.limit == 9
    assert load_sweep(write_sweep(folder, RATE, num_samples=20)).spec.limit is None


def test_every_seed_of_a_configuration_is_a_trial(folder):
    overrides = {"training.seed": 40}
    sweep = load_sweep(write_sweep(folder, GRID, seeds=3, overrides=overrides))
    assert [trial.number for trial in sweep.trials] == list(range(1, 13))
    assert [(trial.configuration, trial.seed) for trial in sweep.trials[2:5]] == [
        (1, 42),
        (2, 40),
        (2, 41),
    ]
    assert sweep.trials_of(2, sweep.trials[3].point) == sweep.trials[3:6]


def test_an_earlier_sweep_is_read_from_its_results(folder):
    earlier = folder / "earlier"
    earlier.mkdir()
    trials = [
        {"point": {"training.learning_rate": 1e-3}, "status": "finished", "metrics": metrics}
        for metrics in ({"accuracy": 0.5, "loss": 1.0}, {"accuracy": 0.7})
    ]
    trials.append({"point": {}, "status": "failed", "metrics": {}})
    (earlier / "results.json").write_text(json.dumps({"trials": trials}))
    fields = {"warm_start": "earlier", "searcher": "tpe", "num_samples": 4}
    (found,) = load_sweep(write_sweep(folder, RATE, **fields)).observations
    assert found.scores == {"accuracy": pytest.approx(0.6)}
    with pytest.raises(SpecError, match="no finished trial there has loss"):
        load_sweep(write_sweep(folder, RATE, metric="loss", **fields))
