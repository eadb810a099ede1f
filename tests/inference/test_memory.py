"""How much memory a replica needs."""

import pytest

from kovar.inference import BatchLimits
from kovar.inference.memory import REPLICA_BYTES, estimate_serving, kv_cache_bytes
from kovar.models.size import model_size

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}


def estimate(config, *, num_labels=None, precision="bf16", device_kind="cuda", **limits):
    return estimate_serving(
        config,
        BatchLimits(**limits),
        max_length=128,
        num_labels=num_labels,
        precision=precision,
        device_kind=device_kind,
    )


def test_grouped_queries_keep_an_eighth_of_the_keys():
    # Two tensors, 32 layers, 8 heads of 128, 2 bytes: 128 KiB for each token.
    assert kv_cache_bytes(model_size(LLAMA), itemsize=2) == 2 * 32 * 8 * 128 * 2


def test_generation_keeps_keys_and_values_of_all_rows():
    memory = estimate(LLAMA, max_rows=4)
    assert memory.weights == 2 * 8_030_261_248
    assert memory.kv_cache == 4 * 128 * 131_072
    assert memory.total == memory.runtime + memory.weights + memory.activations + memory.kv_cache


def test_a_classifier_keeps_none():
    assert estimate({"model_type": "bert"}, num_labels=2).kv_cache == 0


@pytest.mark.parametrize(("precision", "itemsize"), [("fp32", 4), ("bf16", 2), ("fp8", 1)])
def test_weights_have_the_bytes_of_their_precision(precision, itemsize):
    memory = estimate({"model_type": "bert"}, num_labels=2, precision=precision)
    assert memory.weights == itemsize * 109_483_778


def test_on_a_cpu_loading_in_fp32_needs_more_than_a_small_batch_in_bf16():
    memory = estimate({"model_type": "bert"}, num_labels=2, device_kind="cpu", max_tokens=128)
    assert memory.total == REPLICA_BYTES + 4 * 109_483_778


def test_the_largest_batch_has_the_tokens_of_its_limits():
    few = estimate({"model_type": "bert"}, num_labels=2, max_rows=1, max_tokens=4096)
    many = estimate({"model_type": "bert"}, num_labels=2, max_rows=32, max_tokens=4096)
    assert many.activations == pytest.approx(32 * few.activations, rel=0.01)


def test_an_unknown_architecture_has_no_estimate():
    assert estimate({"model_type": "mamba"}) is None
