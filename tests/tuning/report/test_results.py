"""results.json and results.parquet: complete, strict JSON, and read back."""

import json
import math
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from kovar.errors import RunError
from kovar.tuning.record import Evaluation
from kovar.tuning.report import analyze, read_results, write_report
from kovar.tuning.report.results import write_results
from swept import FACTS, RATE, large, report, trial


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    found = large(folder, num_rates=2)
    analysis = analyze(found, folder)
    write_results(found, analysis, folder)
    return found, analysis, folder


def test_a_sweep_is_read_back_as_it_was_written(swept):
    found, analysis, folder = swept
    read, content = read_results(folder / "results.json")
    assert read == found
    assert content["recommendation"] == analysis.recommendation.to_json()
    assert content["best"] == found.best.number


def test_numbers_that_are_not_finite_become_null(tmp_path):
    history = (Evaluation(5, 1.0, {"loss": math.nan}),)
    found = report(trial(1, 0.5), trial(2, status="diverged", history=history))
    write_results(found, analyze(found, tmp_path), tmp_path)
    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert content["trials"][1]["history"][0]["metrics"] == {"loss": None}
    read, _ = read_results(tmp_path / "results.json")
    assert math.isnan(read.trials[1].history[0].metrics["loss"])


def test_the_parquet_file_has_a_row_per_trial_and_typed_columns(swept):
    found, _, folder = swept
    table = pq.read_table(folder / "results.parquet")
    assert table["trial"].to_pylist() == list(range(1, len(found.trials) + 1))
    assert str(table.schema.field(f"point.{RATE}").type) == "double"
    assert str(table.schema.field("point.precision").type) == "string"
    first = table.slice(0, 1).to_pylist()[0]
    assert first["cost"] == pytest.approx(found.trials[0].cost)
    assert dict(first["history"][-1]["metrics"]) == found.trials[0].history[-1].metrics
    assert first["stays"][0]["node"] == found.trials[0].stays[0].node


def test_a_field_of_mixed_values_is_written_as_json(tmp_path):
    points = [{"a": 1}, {"a": "auto"}, {"a": {"kind": "lora"}}, {}]
    trials = [trial(n, 0.5, point=point) for n, point in enumerate(points, 1)]
    found = report(*trials, facts=replace(FACTS, paths=("a",)))
    write_results(found, analyze(found, tmp_path), tmp_path)
    column = pq.read_table(tmp_path / "results.parquet")["point.a"].to_pylist()
    assert column == ["1", '"auto"', '{"kind": "lora"}', None]


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 9}', '{"format": 1, "sweep": {}}'])
def test_a_damaged_file_is_told_with_its_path(tmp_path, damage):
    path = tmp_path / "results.json"
    path.write_text(damage)
    with pytest.raises(RunError, match="cannot read the sweep's results"):
        read_results(path)


@pytest.mark.parametrize("values", [(1 << 70, 3), (1 << 63, 2.5), (-(1 << 64), 10**40)])
def test_whole_numbers_of_any_size_are_written(tmp_path, caplog, values):
    trials = (trial(n, 0.5 + n / 10, point={RATE: value}) for n, value in enumerate(values))
    write_report(report(*trials), tmp_path)
    table = pq.read_table(tmp_path / "results.parquet")
    assert table.column(f"point.{RATE}").to_pylist() == [float(value) for value in values]
    assert not caplog.records
    assert read_results(tmp_path / "results.json")[0].trials[0].point == {RATE: values[0]}
