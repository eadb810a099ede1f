"""Batch jobs with versions of other tasks than one label a text."""

import json
from types import SimpleNamespace

import pyarrow as pa
import pytest

from kovar.batch import EvaluateSpec, PredictSpec
from kovar.batch.evaluate import evaluate_version
from kovar.batch.kinds import check_pair
from kovar.batch.output import OutputFolder
from kovar.batch.parts import divide, find_inputs
from kovar.batch.plan import unplanned_workers
from kovar.batch.predict import PredictWorker, predict_files
from kovar.batch.rows import read_rows
from kovar.batch.spec import EvaluateData
from kovar.batch.worker import RuntimeChoice, raise_problem
from kovar.config import Document
from kovar.errors import SpecError
from kovar.registry import Registry
from tiny_version import settings_in


def evaluated(folder, name):
    fields = {
        "kind": "evaluate",
        "model": "tiny",
        "precision": "fp32",
        "data": {"name": name, "source": "rows.jsonl", "split": "evaluation", "evaluation": 24},
        "slices": {"lengths": [5]},
    }
    spec = Document.of(fields).parse(EvaluateSpec)
    return evaluate_version(spec, base_dir=folder, settings=settings_in(folder))


def predicted(folder, run, rows):
    """Predict rows as a worker does, in this process."""
    (folder / "texts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    fields = {
        "kind": "predict",
        "model": "tiny",
        "precision": "fp32",
        "input": {"source": "texts.jsonl", "bad_rows": "null"},
        "output": {"folder": "answers", "format": "jsonl"},
    }
    spec = Document.of(fields).parse(PredictSpec)
    parts = divide(find_inputs(folder / "texts.jsonl"), part_size=1 << 20)
    output = OutputFolder(folder / "answers", "jsonl")
    output.root.mkdir(exist_ok=True)
    choice = RuntimeChoice.of(spec, run.version, unplanned_workers(spec), settings_in(folder))
    worker = PredictWorker(choice, spec, output, {part.number: part for part in parts})
    raise_problem(worker(pa.table({"part": [0]})))
    (part,) = (folder / "answers").glob("part-*.jsonl")
    return [json.loads(line) for line in part.read_text().splitlines()]


@pytest.mark.ray
def test_held_out_texts_with_many_labels_score_as_in_the_run(ray_session, trained_topics):
    folder, run = trained_topics
    found = evaluated(folder, "topics")
    assert found.assessment.metrics.micro_f1 == pytest.approx(run.metrics["micro_f1"])
    low, high = found.stored.record.intervals["micro_f1"]
    assert low <= found.assessment.metrics.micro_f1 <= high
    assert sum(one.num_rows for one in found.assessment.slices) == 24
    assert "| micro F1 |" in found.folder.report.read_text()
    assert found.folder.page.read_text().count("data:image/png;base64,") == 1


@pytest.mark.ray
def test_held_out_sentences_score_as_in_the_run(ray_session, trained_entities):
    folder, run = trained_entities
    found = evaluated(folder, "entities")
    assert found.assessment.metrics.f1 == pytest.approx(run.metrics["f1"])
    assert sum(one.num_rows for one in found.assessment.slices) == 24
    assert "| F1 of entities |" in found.folder.report.read_text()
    with Registry.open(settings_in(folder)) as registry:
        assert set(registry.evaluations(run.version)) == {"entities"}


def test_predictions_name_all_labels_of_a_text(trained_topics):
    rows = [{"text": "the acting plot is great"}, {"text": ""}]
    good, bad = predicted(*trained_topics, rows)
    assert set(good["scores"]) == {"acting", "good", "plot"}
    assert good["labels"] == [name for name, score in good["scores"].items() if score >= 0.5]
    assert (bad["labels"], set(bad["scores"].values())) == (None, {None})


def test_predictions_give_every_word_a_tag(trained_entities):
    (found,) = predicted(*trained_entities, [{"text": "the plot is very awful 7"}])
    assert found["tags"] == ["O", "B-THING", "O", "B-HOW", "I-HOW", "O"]


@pytest.mark.parametrize("task", ["token-classification", "causal-lm", "masked-lm"])
def test_second_texts_are_refused_where_a_version_does_not_read_them(task):
    version = SimpleNamespace(manifest=SimpleNamespace(signature=SimpleNamespace(task=task)))
    check_pair(version, None, field="input.text_pair")
    with pytest.raises(SpecError, match=r"input\.text_pair: .* no second texts"):
        check_pair(version, "question", field="input.text_pair")


def test_a_tagger_is_not_asked_about_second_texts(trained_entities):
    folder, _ = trained_entities
    (folder / "pairs.jsonl").write_text('{"text": "a", "other": "b"}\n')
    fields = {
        "kind": "predict",
        "model": "tiny",
        "input": {"source": "pairs.jsonl", "text_pair": "other"},
        "output": {"folder": "pairs"},
    }
    spec = Document.of(fields).parse(PredictSpec)
    with pytest.raises(SpecError, match=r"input\.text_pair"):
        predict_files(spec, base_dir=folder, settings=settings_in(folder))
    assert not (folder / "pairs").exists()


def test_second_texts_of_an_evaluated_tagger_are_refused(trained_entities):
    folder, run = trained_entities
    data = EvaluateData(name="entities", source="rows.jsonl", text_pair="other")
    with pytest.raises(SpecError, match=r"data\.text_pair"):
        read_rows(data, run.version, columns=(), cache_dir=folder, base_dir=folder)
