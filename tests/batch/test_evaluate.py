import csv
import json

import pytest

from kovar.batch import EvaluateSpec
from kovar.batch.evaluate import evaluate_version
from kovar.config import Document
from kovar.errors import DataError, PlacementError, UserError
from kovar.inference import load_runtime
from kovar.registry import Gates, MetricBound
from kovar.resources import Cluster, NodeType
from kovar.training.history import list_runs
from tiny_run import write_reviews

FIELDS = {
    "kind": "evaluate",
    "model": "tiny",
    "precision": "fp32",
    "data": {"name": "reviews", "source": "reviews.csv"},
    "batch_rows": 16,
    "slices": {"lengths": [8, 16], "columns": ["shop"]},
    "resources": {"num_workers": 2},
}


def spec_of(**changes) -> EvaluateSpec:
    return Document.of(FIELDS | changes).parse(EvaluateSpec)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 reviews with the shop that each is of."""
    found = tmp_path_factory.mktemp("reviews")
    rows = list(
        csv.reader(write_reviews(found / "plain.csv", num_rows=60).read_text().splitlines())
    )
    shops = ["shop", *("north" if row % 3 else "south" for row in range(60))]
    with (found / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([*row, shop] for row, shop in zip(rows, shops, strict=True))
    return found


@pytest.fixture(scope="module")
def result(ray_session, folder, settings):
    return evaluate_version(spec_of(), base_dir=folder, settings=settings)


pytestmark = pytest.mark.ray


def test_every_row_is_scored_as_the_runtime_scores_it_here(result, folder, registry):
    rows = list(csv.DictReader((folder / "reviews.csv").read_text().splitlines()))
    runtime = load_runtime(registry.materialize(result.version), precision="fp32")
    expected = [one.label for one in runtime.predict([row["text"] for row in rows])]
    predictions = registry.predictions(result.version).datasets["reviews"]
    assert [predictions.labels[index] for index in predictions.predicted] == expected
    assert [predictions.labels[index] for index in predictions.true] == [r["label"] for r in rows]


def test_the_registry_keeps_the_result_beside_the_version(result, registry):
    stored = registry.evaluations(result.version)["reviews"]
    assert stored.record.metrics == result.assessment.metrics.to_json()
    assert stored.record.intervals["accuracy"][0] < stored.record.metrics["accuracy"]
    assert registry.version("tiny", 1).digest == result.version.digest
    assert registry.verify(result.version) == []


def test_slices_count_every_row_once_per_division(result):
    found = result.stored.record.slices
    for by in ("length", "shop"):
        assert sum(one["num_rows"] for one in found if one["by"] == by) == 60
    assert {one["value"] for one in found if one["by"] == "shop"} == {"north", "south"}


def test_the_folder_holds_a_report_and_two_pictures(result):
    report = result.folder.report.read_text()
    assert "| macro F1 |" in report
    assert "length 9 to 16" in report
    assert result.folder.page.read_text().count("data:image/png;base64,") == 2
    assert json.loads(result.folder.result.read_text())["rows"] == result.stored.record.rows


def test_the_list_of_runs_shows_a_finished_evaluation(result, settings):
    (found,) = list_runs(settings.runs_dir)
    assert (found.run, found.kind, found.status) == (result.folder.run, "evaluate", "finished")
    assert found.score == result.assessment.metrics.accuracy


def test_a_gate_reads_an_evaluation_as_it_reads_the_run_itself(result, registry):
    bound = MetricBound(dataset="reviews", metric="accuracy", minimum=0.99)
    registry.declare_gates("tiny", Gates(metrics=(bound,)), alias="guarded")
    (found,) = registry.check_gates("tiny", "guarded", 1)
    assert not found.passed
    assert found.numbers["value"] == result.assessment.metrics.accuracy


def test_the_same_evaluation_again_is_stored_once(result, folder, settings, registry):
    again = evaluate_version(spec_of(), base_dir=folder, settings=settings)
    assert again.stored.digest == result.stored.digest
    assert again.folder == result.folder
    assert len(registry.derived(result.version)) == 1


def test_a_label_that_the_version_does_not_know_is_refused_before_ray_starts(folder, settings):
    (folder / "odd.csv").write_text("text,label\nso so,neutral\nfine,positive\n")
    spec = spec_of(data={"name": "odd", "source": "odd.csv"}, slices={})
    with pytest.raises(DataError, match="does not know the label 'neutral'") as refused:
        evaluate_version(spec, base_dir=folder, settings=settings)
    assert refused.value.context["allowed"] == "negative, positive"


def test_a_column_that_is_not_there_is_named(folder, settings):
    spec = spec_of(slices={"columns": ["shopp"]})
    with pytest.raises(DataError, match=r"slices\.columns: the data set has no such column"):
        evaluate_version(spec, base_dir=folder, settings=settings)


def test_workers_that_fit_nowhere_are_refused_with_the_number_that_fits(folder, settings):
    node = NodeType(name="small", cpus=2, min_count=1, max_count=1, is_head=True)
    spec = spec_of(resources={"num_workers": 5})
    with pytest.raises(PlacementError, match=r"resources\.num_workers") as refused:
        evaluate_version(
            spec, base_dir=folder, settings=settings, cluster=Cluster((node,), origin="test")
        )
    assert refused.value.context["allowed"] == "at most 2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resources": {"worker": {"kind": "tpu", "type": "v5e", "topology": "2x4"}}}, "TPUs"),
        ({"slices": {"lengths": [8, 8]}}, "lengths ascend"),
        ({"batch_rows": 0}, "greater than or equal to 1"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        spec_of(**changes)
