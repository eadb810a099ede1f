"""Each task from spec to a registered version that answers."""

import json
import shutil

import pytest
import torch

from kovar.data import DataSpec, prepare_dataset
from kovar.errors import DataError, GoldenError, ModelError, SpecError
from kovar.inference import load_any, load_runtime, load_version
from kovar.models import check_folder
from kovar.precision import ResolvedPrecision
from kovar.registry import Registry, card, card_html, read_golden, write_golden
from kovar.training import TrainingSettings
from kovar.training.engine import Engine
from kovar.training.tasks import TASKS
from tiny import build_tiny_encoder
from tiny_run import run_spec, write_spec
from tiny_tasks import TRAINING, pair_rows, tagged_rows, topic_rows, write_lines, write_task
from tiny_version import settings_in


def loaded(folder, result):
    with Registry.open(settings_in(folder)) as registry:
        return result, load_version(registry, result.version, require_golden=True)


def trained(folder, *arguments, **changes):
    return loaded(folder, run_spec(write_task(folder, *arguments, **changes), settings_in(folder)))


@pytest.fixture(scope="module")
def topics(trained_topics):
    return loaded(*trained_topics)


@pytest.fixture(scope="module")
def entities(trained_entities):
    return loaded(*trained_entities)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    data = {"text": "first", "text_pair": "second"}
    return trained(folder, "text-classification", pair_rows(), data=data)


def test_a_text_is_given_any_number_of_labels(topics):
    result, runtime = topics
    assert (result.metrics["micro_f1"] > 0.8, runtime.any_labels) == (True, True)
    predictions = runtime.predict([row["text"] for row in topic_rows()])
    counts = {sum(score >= 0.5 for score in one.scores.values()) for one in predictions}
    assert {0, 1, 2} <= counts


def test_the_version_of_a_multilabel_run_states_its_task_and_its_intervals(topics):
    result, _ = topics
    signature = result.version.manifest.signature
    assert (signature.task, signature.labels) == (
        "multilabel-classification",
        ("acting", "good", "plot"),
    )
    low, high = result.metrics["intervals"]["micro_f1"]
    assert low <= result.metrics["micro_f1"] <= high
    assert "Micro f1" in card(result.version)
    assert "micro f1" in card_html(result.version)
    assert "micro F1" in result.summary()


def test_words_are_given_tags(entities):
    result, tagger = entities
    assert result.metrics["f1"] > 0.9
    (one,) = tagger.tag(["the plot is very awful 7"])
    assert one.tags == ("O", "B-THING", "O", "B-HOW", "I-HOW", "O")
    assert [len(scores) for scores in one.scores] == [4] * 6


def test_words_that_are_cut_off_have_no_tag(entities):
    _, tagger = entities
    (one,) = tagger.tag([["good"] * 60])
    assert one.truncated
    assert (None in one.tags[:30], one.tags[30:]) == (False, (None,) * 30)


def test_a_tagger_does_not_load_as_a_classifier_of_texts(entities):
    result, _ = entities
    with pytest.raises(ModelError, match="does not classify texts"):
        load_runtime(result.folder.model)


def test_a_tagger_must_reproduce_the_probabilities_of_its_tags(entities, tmp_path):
    result, _ = entities
    folder = shutil.copytree(result.folder.model, tmp_path / "model")
    golden = read_golden(folder)
    assert len(golden.examples[0].numbers) == 4 * 6
    numbers = (0.9, *golden.examples[0].numbers[1:])
    moved = golden.examples[0].model_copy(update={"numbers": numbers})
    write_golden(golden.model_copy(update={"examples": (moved,)}), folder)
    with pytest.raises(GoldenError, match="one of the probabilities of tags differs"):
        load_any(folder)


def test_a_pair_of_texts_is_read_together(pairs):
    result, runtime = pairs
    assert result.metrics["accuracy"] > 0.9
    found = runtime.predict([("it is good", "bad"), ("it is bad", "great")])
    assert [one.label for one in found] == ["blame", "praise"]


def test_golden_examples_of_pairs_hold_both_texts(pairs):
    result, _ = pairs
    golden = json.loads((result.folder.model / "golden.json").read_text())
    assert golden["examples"][0]["text_pair"]


def test_an_adapter_of_a_tagger_answers_as_it_was_evaluated(tmp_path):
    method = {"kind": "lora", "merge": True}
    result, tagger = trained(tmp_path, "token-classification", tagged_rows(60), method=method)
    assert tagger.labels == ("B-HOW", "B-THING", "I-HOW", "O")
    with Registry.open(settings_in(tmp_path)) as registry:
        adapter = load_version(registry, result.adapter, require_golden=True)
    assert adapter.tag(["the plot is dull"]) == tagger.tag(["the plot is dull"])


def test_a_field_of_another_task_is_refused(tmp_path):
    path = write_task(tmp_path, "token-classification", tagged_rows(20), data={"text": "tokens"})
    with pytest.raises(SpecError, match=r"token-classification does not read data\.text"):
        run_spec(path, settings_in(tmp_path))


def test_tags_of_another_form_are_refused(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": ["O", "noun"]}] * 40
    with pytest.raises(DataError, match="O, B-TYPE and I-TYPE"):
        run_spec(write_task(tmp_path, "token-classification", rows), settings_in(tmp_path))


def test_smoothed_labels_keep_the_model_unsure(tmp_path):
    def highest(share):
        (folder := tmp_path / str(share)).mkdir()
        path = write_spec(folder, training=TRAINING | {"label_smoothing": share})
        golden = read_golden(run_spec(path, settings_in(folder)).folder.model)
        return max(max(example.scores.values()) for example in golden.examples)

    assert highest(0.4) < 0.9 < highest(0.0)


@pytest.mark.parametrize(
    ("name", "rows"),
    [("multilabel-classification", topic_rows(60)), ("token-classification", tagged_rows(60))],
)
def test_micro_batches_add_up_to_the_large_batch(name, rows, tmp_path):
    base = check_folder(build_tiny_encoder(tmp_path / "encoder"), source="tiny")
    data = DataSpec(source=write_lines(tmp_path / "rows.jsonl", rows).name, max_length=32)
    places = {"tokenizer_dir": base.folder, "cache_dir": tmp_path, "base_dir": tmp_path}
    dataset = prepare_dataset(data, layout=TASKS[name].layout, **places)

    def weights(micro_batch_tokens):
        settings = TrainingSettings(
            epochs=1, max_tokens=256, learning_rate=0.1, optimizer="sgd", dropout=0.0,
            micro_batch_tokens=micro_batch_tokens,
        )  # fmt: skip
        torch.manual_seed(0)
        engine = Engine(
            TASKS[name].build_model(base, dataset, dropout=0.0).model.double(),
            dataset,
            task=TASKS[name],
            settings=settings,
            precision=ResolvedPrecision("fp32", "float64", False, False, "test"),
            device=torch.device("cpu"),
            report=lambda event, **fields: None,
        )
        for planned in engine.steps:
            engine.step(engine.feed.prepare(planned), planned.learning_rate)
        return torch.cat([p.detach().flatten() for p in engine.parameters.values()])

    assert (weights(None) - weights(48)).abs().max() < 1e-6
