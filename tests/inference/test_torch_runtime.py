from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kovar.errors import ModelError
from kovar.inference import Encoded, TorchRuntime, load_runtime
from kovar.inference.loader import Place
from tiny_version import build_tiny_classifier

TEXTS = ["i loved it", "a dull story and the acting is awful", "fine", "the plot is not good " * 3]


def test_answers_keep_the_order_of_the_texts(runtime):
    together = runtime.predict(TEXTS, max_tokens=32)
    for text, prediction in zip(TEXTS, together, strict=True):
        alone = runtime.predict([text])[0]
        assert prediction.scores == pytest.approx(alone.scores, abs=1e-6)


def test_probabilities_sum_to_one_and_the_label_has_the_highest(runtime):
    for prediction in runtime.predict(TEXTS):
        assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-6)
        assert prediction.score == max(prediction.scores.values())
        assert prediction.scores[prediction.label] == prediction.score


def test_a_long_text_is_truncated_and_says_so(runtime):
    short, long = runtime.tokenize(["good", "good " * 500])
    assert not short.truncated
    assert long.truncated
    assert long.length == runtime.max_length == 64
    assert runtime.run([long])[0].truncated


def test_texts_are_read_as_far_as_in_training(tmp_path):
    runtime = load_runtime(build_tiny_classifier(tmp_path / "short", max_length=8))
    assert runtime.max_length == 8
    assert runtime.tokenize(["good " * 500])[0].length == 8


def test_the_model_computes_attention_with_the_fused_kernel(runtime):
    assert runtime._model.config._attn_implementation == "sdpa"


def test_bf16_answers_are_near_those_of_fp32(classifier_folder, runtime):
    half = load_runtime(classifier_folder, precision="bf16")
    assert half.precision == "bf16"
    for exact, near in zip(runtime.predict(TEXTS), half.predict(TEXTS), strict=True):
        assert near.scores == pytest.approx(exact.scores, abs=3e-2)


def test_a_compiled_model_answers_as_the_plain_one(classifier_folder, runtime):
    # The eager backend traces and guards as the others do, and compiles nothing.
    model = Place(classifier_folder).exact_model()
    compiled = TorchRuntime(model, compiled=True, backend="eager")
    for texts in (TEXTS, TEXTS[:1], TEXTS[1:3]):
        batch = runtime.tokenize(texts)
        np.testing.assert_allclose(compiled.scores(batch), runtime.scores(batch), atol=1e-6)


def test_an_output_that_is_not_finite_is_an_error(classifier_folder, tmp_path):
    folder = altered(classifier_folder, tmp_path, "classifier.bias", float("nan"))
    with pytest.raises(FloatingPointError):
        load_runtime(folder).predict(["good"])


def test_the_number_of_threads_is_what_was_asked(classifier_folder):
    import torch

    before = torch.get_num_threads()
    try:
        load_runtime(classifier_folder, num_threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_absent_file_is_named(classifier_folder, tmp_path, name):
    folder = copied(classifier_folder, tmp_path)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_runtime(folder)


def test_weights_without_a_trained_head_are_refused(tiny_encoder):
    with pytest.raises(ModelError, match=r"classifier\.(bias|weight)"):
        load_runtime(tiny_encoder)


def test_tokens_are_padded_to_the_longest_row_of_the_batch(runtime):
    inputs = runtime.reader.pad([Encoded((2, 3)), Encoded((2, 9, 9, 3))])
    assert inputs.ids.tolist() == [[2, 3, 0, 0], [2, 9, 9, 3]]
    assert inputs.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_rows_of_one_length_need_no_mask(runtime):
    inputs = runtime.reader.pad([Encoded((2, 9, 3)), Encoded((2, 8, 3))])
    assert inputs.ids.tolist() == [[2, 9, 3], [2, 8, 3]]
    assert inputs.mask is None
    assert inputs.whole_mask().tolist() == [[1, 1, 1], [1, 1, 1]]


def test_the_second_text_of_a_pair_has_a_type_of_its_own(runtime):
    encoded = runtime.tokenize([("good film", "bad"), "good"])
    tokenizer = runtime.reader.tokenizer
    ids = [tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[PAD]")]
    assert (encoded[0].ids[0], encoded[0].ids[3], encoded[0].second) == (ids[0], ids[1], 4)
    assert runtime.reader.pad(encoded).types.tolist() == [[0, 0, 0, 0, 1, 1], [0] * 6]


def test_the_runtime_satisfies_its_protocol(runtime: TorchRuntime):
    assert runtime.name == "torch"
    assert runtime.labels == ("negative", "positive")


def copied(source: Path, target: Path) -> Path:
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def altered(source: Path, target: Path, weight: str, value: float) -> Path:
    folder = copied(source, target)
    weights = load_file(folder / "model.safetensors")
    weights[weight] = weights[weight] * 0 + value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
