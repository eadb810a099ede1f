"""Attributions: what each token did for the predicted label."""

from __future__ import annotations

import math

import pytest

from kovar.inference import Encoded, load_runtime
from kovar.inference.attributor import Attributor

TEXT = "a dull story and the acting is awful"


def log_probability(runtime, ids: tuple[int, ...], label: str) -> float:
    return math.log(runtime.run([Encoded(ids)])[0].scores[label])


def test_the_weights_sum_to_what_the_text_does_for_the_label(runtime):
    (item,) = runtime.tokenize([TEXT])
    (found,) = runtime.attribute([item])
    reader, label = runtime.reader, found.prediction.label
    empty = tuple(i if i in reader.special_ids else reader.files.pad_id for i in item.ids)
    difference = log_probability(runtime, item.ids, label) - log_probability(runtime, empty, label)
    assert sum(found.weights) == pytest.approx(difference, abs=1e-3)


def test_every_token_has_a_weight_and_special_ones_have_none(runtime):
    (item,) = runtime.tokenize([TEXT])
    (found,) = runtime.attribute([item])
    assert len(found.weights) == item.length
    assert found.weights[0] == found.weights[-1] == 0
    assert any(weight != 0 for weight in found.weights)


def test_the_explained_answer_is_that_of_the_runtime(runtime):
    batch = runtime.tokenize([TEXT, "i loved it"])
    for found, answer in zip(runtime.attribute(batch), runtime.run(batch), strict=True):
        assert found.prediction.label == answer.label
        assert found.prediction.scores == pytest.approx(answer.scores, abs=1e-6)


def test_a_runtime_in_half_precision_explains_in_fp32(classifier_folder, runtime):
    half = load_runtime(classifier_folder, runtime="torch", precision="bf16")
    (item,) = runtime.tokenize([TEXT])
    (here,), (there,) = half.attribute([item]), runtime.attribute([item])
    assert here.weights == pytest.approx(there.weights, abs=1e-6)


def test_the_second_text_of_a_pair_is_explained_too(runtime):
    (item,) = runtime.tokenize([("i loved it", "the plot is bad")])
    (found,) = runtime.attribute([item])
    assert any(weight != 0 for weight in found.weights[item.second : -1])


def test_explaining_leaves_no_gradient_behind(runtime):
    runtime.attribute(runtime.tokenize([TEXT]))
    assert all(weight.grad is None for weight in runtime._model.parameters())


def test_spans_say_where_tokens_stand(runtime):
    spans = runtime.spans("i loved it")
    assert [token for token, _, _ in spans] == ["[CLS]", "i", "loved", "it", "[SEP]"]
    assert ["i loved it"[first:end] for _, first, end in spans] == ["", "i", "loved", "it", ""]


def test_more_steps_come_nearer_to_the_exact_sum(classifier_folder):
    from kovar.inference.loader import Place

    model = Place(classifier_folder).exact_model()
    item = model.reader.tokenize([TEXT])[0]
    few, many, exact = (
        sum(Attributor(model, num_steps=steps).weights(item).weights) for steps in (1, 8, 256)
    )
    assert abs(many - exact) <= abs(few - exact)
