"""Language models end to end: from a spec to a version that answers as it was evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kovar.batch.kinds import kind_of
from kovar.config import load_document
from kovar.errors import GoldenError, ModelError, SpecError
from kovar.inference import TorchScorer, load_any, load_runtime, load_version
from kovar.registry import Registry
from kovar.training import FineTuneSpec
from tiny import build_tiny_decoder
from tiny_run import run_spec, write_spec
from tiny_version import settings_in

TRAINING = {"epochs": 2, "max_tokens": 256, "learning_rate": 0.01}
CHARACTERS = {"kind": "characters", "vocab_size": 300, "lowercase": True}
BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


@pytest.fixture
def settings(tmp_path):
    return settings_in(tmp_path)


def write_chats(folder):
    rows = [
        [
            {"role": "user", "content": f"What is {one} and {other}?"},
            {"role": "assistant", "content": f"{one + other}."},
        ]
        for one in range(6)
        for other in range(6)
    ]
    text = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    (folder / "chats.jsonl").write_text(text)


def test_masked_words_are_learned_and_the_version_is_a_base_for_a_classifier(settings, tmp_path):
    path = write_spec(tmp_path, name="lm", task="masked-lm", training=TRAINING)
    result = run_spec(path, settings)
    metrics = result.metrics
    assert {"loss", "perplexity", "token_accuracy", "num_tokens"} <= set(metrics)
    with Registry.open(settings) as registry:
        loaded = load_version(registry, result.version)
        assert isinstance(loaded, TorchScorer)
        assert loaded.score(["the film is good"])[0].num_tokens > 0
    model = {"base": f"version:lm@{result.version.number}"}
    again = run_spec(
        write_spec(tmp_path, model=model, training=TRAINING | {"max_steps": 3}), settings
    )
    assert again.version.manifest.parents[0].digest == result.version.digest
    assert "perplexity" in result.summary()


@pytest.mark.parametrize("method", ["full", {"kind": "lora", "rank": 4, "merge": True}])
def test_conversations_are_learned_and_the_version_scores_them(method, settings, tmp_path):
    write_chats(tmp_path)
    build_tiny_decoder(tmp_path / "decoder")
    data = {"source": "chats.jsonl", "messages": "messages", "evaluation": 6, "max_length": 128}
    path = write_spec(
        tmp_path,
        task="causal-lm",
        model={"base": "decoder"},
        method=method,
        data=data,
        training=TRAINING | {"max_tokens": 1024, "epochs": 4},
    )
    result = run_spec(path, settings)
    assert result.metrics["num_rows"] == 6
    with Registry.open(settings) as registry:
        folder = registry.materialize(result.version)
        assert (folder / "chat_template.jinja").is_file()
        (example, *_) = json.loads((folder / "golden.json").read_text())["examples"]
        loaded = load_version(registry, result.version, precision="fp32")
        (again,) = loaded.score([example["text"]], form="messages")
        assert again.loss == pytest.approx(example["numbers"][0], abs=1e-4)
        with pytest.raises(ModelError, match="does not classify texts"):
            load_runtime(folder)
        with pytest.raises(SpecError, match="cannot be evaluated here"):
            kind_of(result.version)


def test_a_model_from_scratch_learns_to_answer_by_the_recipe(settings):
    result = run_spec(Path(__file__).parents[2] / "jobs" / "tiny-chat.yaml", settings)
    assert result.metrics["perplexity"] < 20


def test_lists_in_a_method_are_read_from_a_file(tmp_path):
    method = {"kind": "lora", "target_modules": ["query", "value"]}
    spec = load_document(write_spec(tmp_path, method=method)).parse(FineTuneSpec)
    assert spec.method.target_modules == ("query", "value")


def test_a_version_whose_losses_changed_is_refused(settings, tmp_path):
    path = write_spec(tmp_path, task="masked-lm", training=TRAINING | {"max_steps": 2})
    result = run_spec(path, settings)
    folder = result.folder.model
    golden = json.loads((folder / "golden.json").read_text())
    golden["examples"][0]["numbers"][0] += 0.1
    (folder / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(GoldenError, match="losses of texts"):
        load_any(folder)


def test_a_writer_from_scratch_reads_packed_texts(settings, tmp_path):
    model = {"config": LLAMA, "tokenizer": {"kind": "bytes", "vocab_size": 320}}
    path = write_spec(
        tmp_path,
        task="causal-lm",
        model=model,
        data={"source": "reviews.csv", "evaluation": 24, "max_length": 64},
        training=TRAINING,
    )
    result = run_spec(path, settings)
    assert result.version.manifest.base_model.source == "scratch"
    assert result.metrics["perplexity"] < 200


def test_a_classifier_from_scratch_learns_its_own_characters(settings, tmp_path):
    path = write_spec(tmp_path, model={"config": BERT, "tokenizer": CHARACTERS})
    result = run_spec(path, settings)
    assert result.metrics["accuracy"] > 0.75


@pytest.mark.parametrize(
    ("task", "base", "message"),
    [
        ("causal-lm", "encoder", "causal-lm does not train such models"),
        ("text-classification", "decoder", "text-classification does not train such models"),
    ],
)
def test_a_base_that_does_not_suit_the_task_is_refused(task, base, message, settings, tmp_path):
    build_tiny_decoder(tmp_path / "decoder")
    path = write_spec(tmp_path, task=task, model={"base": base})
    with pytest.raises(ModelError, match=message):
        run_spec(path, settings)
