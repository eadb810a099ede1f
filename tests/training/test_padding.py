"""Rows in one line teach what padded rows teach."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kovar.errors import SpecError
from kovar.models import read_rows_in_line
from kovar.precision import ResolvedPrecision
from kovar.training import TrainingSettings
from kovar.training.checkpoint import CheckpointFolder
from kovar.training.padding import ResolvedPadding, in_line, resolve_padding
from kovar.training.tasks import Collated

IN_LINE = ResolvedPadding(True, "test")
BF16 = ResolvedPrecision("bf16", "bfloat16", True, False, "test")
FP32 = ResolvedPrecision("fp32", "float32", False, False, "test")
LENGTHS = (5, 2, 9, 1)
TOKENS = np.array(LENGTHS, dtype=np.int32)
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 32,
}


def rows() -> Collated:
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int64)
    ids = np.where(mask == 1, np.arange(mask.size).reshape(mask.shape) % 40 + 5, 1)
    return Collated({"input_ids": ids, "attention_mask": mask}, np.array([0, 1, 1, 0]), 4)


def gradients(model, found, *, longest=None):
    inputs = {name: torch.from_numpy(array) for name, array in found.inputs.items()}
    logits = model(**inputs, **({"max_length_q": longest} if longest else {})).logits
    if logits.dim() == 3:
        kept = inputs.get("attention_mask", torch.ones(logits.shape[:2])).bool()
        logits = logits[kept]
    model.zero_grad()
    logits.log_softmax(-1)[:, 0].sum().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}


def build(kind):
    import transformers as t

    torch.manual_seed(0)
    models = {
        "bert": lambda: t.BertForSequenceClassification(t.BertConfig(**SIZES)),
        "roberta": lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**SIZES)),
        "electra": lambda: t.ElectraForSequenceClassification(t.ElectraConfig(**SIZES)),
        "bert tokens": lambda: t.BertForTokenClassification(t.BertConfig(**SIZES)),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SIZES, num_key_value_heads=1)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**SIZES, num_key_value_heads=1)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=32)
        ),
    }
    return models[kind]().double().eval()


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "electra", "bert tokens", "llama", "qwen2", "gpt2"]
)
def test_losses_and_gradients_are_those_of_padded_rows(kind):
    model, padded = build(kind), rows()
    logits, before = gradients(model, padded)
    read_rows_in_line(model)
    first = model.config.pad_token_id + 1 if kind == "roberta" else 0
    found, after = gradients(model, in_line(padded, TOKENS, first), longest=max(LENGTHS))
    assert torch.allclose(found, logits, atol=1e-10)
    assert all(torch.allclose(after[name], before[name], atol=1e-10) for name in before)


def test_a_model_that_reads_lines_still_reads_padded_rows():
    model, padded = build("bert"), rows()
    logits, _ = gradients(model, padded)
    read_rows_in_line(model)
    gradients(model, in_line(padded, TOKENS, 0), longest=max(LENGTHS))
    assert torch.allclose(gradients(model, padded)[0], logits, atol=1e-10)


def test_targets_of_tokens_follow_them_into_the_line():
    padded = rows()
    found = in_line(
        Collated(padded.inputs, padded.inputs["input_ids"], 17, targets_per_token=True), TOKENS, 0
    )
    assert np.array_equal(found.targets, found.inputs["input_ids"])
    assert found.targets.shape == (1, sum(LENGTHS))
    assert found.inputs["cu_seq_lens_q"].tolist() == [0, 5, 7, 16, 17]


@pytest.mark.parametrize(
    "changes", [{}, {"micro_batch_tokens": 64}, {"gradient_checkpointing": True}]
)
def test_a_run_in_lines_ends_like_a_padded_one(engines, tmp_path, changes):
    settings = TrainingSettings(epochs=1, max_tokens=256, dropout=0.0, **changes)
    weights = []
    for padding in (ResolvedPadding(False, "test"), IN_LINE):
        events = []
        engine = engines(settings, padding=padding, events=events)
        engine.train(CheckpointFolder(tmp_path / str(padding.padding_free), keep=1))
        weights.append({n: p.detach() for n, p in engine.parameters.items()})
        shares = [fields["padding"] for event, fields in events if event == "step"]
    assert shares
    assert set(shares) == {0}
    assert all(torch.allclose(weights[0][n], weights[1][n], atol=1e-5) for n in weights[0])


def resolve(asked="auto", *, device="cuda", precision=BF16, **config):
    return resolve_padding(
        asked,
        {"model_type": "bert", "pad_token_id": 1} | config,
        device_type=device,
        precision=precision,
    )


def test_auto_takes_lines_where_a_kernel_attends_within_rows():
    assert resolve() == ResolvedPadding(True, "one kernel attends within each row")
    assert resolve(model_type="roberta").first_position == 2
    assert resolve(model_type="llama").padding_free
    assert resolve(model_type="mistral", sliding_window=None).padding_free
    assert resolve(model_type="qwen2", sliding_window=64, use_sliding_window=False).padding_free


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cpu"}, "only CUDA chips"),
        ({"precision": FP32}, "does not compute in fp32"),
        ({"attention_probs_dropout_prob": 0.1}, "training.dropout: 0"),
        ({"model_type": "distilbert"}, "distilbert models need padded rows"),
        ({"model_type": "mistral"}, "to the last 4,096 tokens"),
        ({"asked": False}, "padding_free: false"),
    ],
)
def test_auto_pads_elsewhere_and_says_why(changes, reason):
    found = resolve(**changes)
    assert not found.padding_free
    assert reason in found.reason


def test_lines_are_refused_for_a_model_that_needs_padding():
    with pytest.raises(SpecError, match="distilbert models need padded rows") as caught:
        resolve(True, model_type="distilbert")
    assert caught.value.field == "training.padding_free"


def test_lines_can_be_asked_for_where_no_kernel_is():
    assert resolve(True, device="cpu", precision=FP32).padding_free


def test_a_table_of_labels_as_wide_as_the_rows_are_long_stays_a_table():
    padded = rows()
    table = np.ones_like(padded.inputs["input_ids"])
    assert in_line(Collated(padded.inputs, table, table.size), TOKENS, 0).targets is table
