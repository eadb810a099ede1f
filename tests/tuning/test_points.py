"""From a sweep to its trials: every point is known and valid before the first one starts."""

import pytest

from kovar.errors import SpecError
from kovar.tuning import draw_points, load_sweep
from tiny_run import write_spec
from tiny_sweep import GRID, sweep_spec, write_sweep


def test_a_grid_is_every_combination():
    points = draw_points(sweep_spec(GRID))
    assert [tuple(point.values()) for point in points] == [
        (1e-4, "fp32"),
        (1e-4, "bf16"),
        (1e-3, "fp32"),
        (1e-3, "bf16"),
    ]


def test_samples_stay_in_their_ranges_and_depend_on_the_seed_alone():
    search = {
        "a": {"kind": "loguniform", "low": 1e-5, "high": 1e-2},
        "b": {"kind": "uniform", "low": 0.0, "high": 1.0},
        "c": {"kind": "integer", "low": 1, "high": 3},
        "d": {"kind": "choice", "values": ["x", "y"]},
    }
    points = draw_points(sweep_spec(search, num_samples=50))
    assert all(1e-5 <= p["a"] < 1e-2 and 0 <= p["b"] < 1 for p in points)
    assert {p["c"] for p in points} == {1, 2, 3}
    assert points == draw_points(sweep_spec(search, num_samples=50))
    assert points != draw_points(sweep_spec(search, num_samples=50, seed=1))


def test_the_grid_is_tried_with_each_sample():
    search = GRID | {"training.warmup": {"kind": "uniform", "low": 0.0, "high": 0.5}}
    assert len(draw_points(sweep_spec(search, num_samples=3))) == 12


def test_a_trial_is_the_base_with_overrides_and_its_point(tmp_path):
    path = write_sweep(tmp_path, GRID, overrides={"training.epochs": 3})
    sweep = load_sweep(path)
    last = sweep.trials[-1].spec
    assert (last.training.epochs, last.training.learning_rate) == (3, 1e-3)
    assert last.precision == "bf16"
    assert last.training.max_tokens == 128  # the base's own


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            {"training.learning_rte": {"kind": "grid", "values": [1]}},
            'did you mean "learning_rate"',
        ),
        ({"precision": {"kind": "grid", "values": ["fp32", "bf61"]}}, 'did you mean "bf16"'),
        ({"training.epochs": {"kind": "choice", "values": [0]}}, "greater than or equal to 1"),
        ({"training.seed": {"kind": "integer", "low": 5, "high": 1}}, "high must be above low"),
        ({"training.seed": {"kind": "gird", "values": [1]}}, 'did you mean "grid"'),
        ({}, "at least 1 item"),
    ],
)
def test_a_mistake_is_told_at_its_line_before_any_trial(tmp_path, search, message):
    with pytest.raises(SpecError) as refusal:
        load_sweep(write_sweep(tmp_path, search))
    assert message in str(refusal.value)
    assert str(refusal.value).startswith(f"{tmp_path / 'sweep.yaml'}:")


def test_a_base_that_is_missing_is_told_at_its_line(tmp_path):
    path = write_sweep(tmp_path, GRID, base="absent.yaml")
    with pytest.raises(SpecError, match=r"sweep.yaml:4: base: no such file"):
        load_sweep(path)


@pytest.mark.parametrize(("base", "says"), [("", "no file is named"), (".", "this is a folder")])
def test_a_base_that_is_no_file_is_told_at_its_line(tmp_path, base, says):
    with pytest.raises(SpecError, match=rf"sweep.yaml:4: base: {says}"):
        load_sweep(write_sweep(tmp_path, GRID, base=base))


def test_an_elastic_base_is_refused_with_the_override_that_helps(tmp_path):
    path = write_sweep(tmp_path, GRID)
    write_spec(tmp_path, resources={"num_workers": {"min": 1, "max": 2}})
    with pytest.raises(SpecError, match=r"sweep.yaml:4: base: .* fixed number of workers"):
        load_sweep(path)
    path = write_sweep(tmp_path, GRID, overrides={"resources.num_workers": 2})
    write_spec(tmp_path, resources={"num_workers": {"min": 1, "max": 2}})
    assert load_sweep(path).trials[0].spec.resources.num_workers.min == 2


def test_a_task_without_the_metric_of_the_sweep_is_refused(tmp_path):
    sweep = write_sweep(tmp_path, GRID, metric="accuracy")
    write_spec(tmp_path, task="masked-lm")
    with pytest.raises(SpecError, match="accuracy, which masked-lm does not have"):
        load_sweep(sweep)
