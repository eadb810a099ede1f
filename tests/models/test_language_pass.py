"""What passes of language models keep: held against what autograd really saves."""

import contextlib

import pytest
import torch
import transformers

from kovar.models import quicken_dropout, select_targets
from kovar.models.forward import Arithmetic
from kovar.models.language_size import language_model_size
from kovar.models.liveness import saved_bytes
from kovar.models.recorder import record
from small_configs import ENCODERS

ROWS, LENGTH, TARGETS = 4, 32, 48
SHAPE = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "vocab_size": 200,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
DECODERS = {
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": 200, "n_positions": 64},
    "llama": GROUPED,
    "mistral": {**GROUPED, "tie_word_embeddings": True},
    "olmo2": GROUPED,
    "phi3": {**GROUPED, "resid_pdrop": 0.1},
    "qwen2": {**SHAPE, "num_key_value_heads": 4},
    "qwen3": {**GROUPED, "head_dim": 16},
    "smollm3": {**GROUPED, "num_hidden_layers": 4},
}
MODELS = {**ENCODERS, **DECODERS}


def build(model_type):
    causal = model_type in DECODERS
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    config = transformers.AutoConfig.for_model(model_type, **MODELS[model_type])
    model = kind.from_config(config, attn_implementation="sdpa").train()
    quicken_dropout(model)
    select_targets(model)
    return model


def tally(model, precision):
    """Return the bytes of storages that autograd saves of pass and loss, weights aside."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)  # alive: addresses stay taken
        return tensor

    inputs = {"input_ids": torch.full((ROWS, LENGTH), 7), "target_positions": torch.arange(TARGETS)}
    if model.config.model_type not in DECODERS:
        inputs["attention_mask"] = torch.ones(ROWS, LENGTH, dtype=torch.int64)
        inputs["attention_mask"][0, LENGTH // 2 :] = 0
    low = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with low:
            logits = model(**inputs).logits
        targets = torch.zeros(TARGETS, dtype=torch.int64)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    assert loss.requires_grad
    assert logits.shape == (TARGETS, model.config.vocab_size)
    return sum(size for size, _ in seen.values())


def recorded(config, precision="fp32", **options):
    wanted = {
        "length": LENGTH,
        "arithmetic": Arithmetic.training(precision),
        "device": "cpu",
        "training": True,
        "predicted_share": TARGETS / (ROWS * LENGTH),
        **options,
    }
    return record(config, language_model_size(config), **wanted)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model_type", sorted(MODELS))
def test_autograd_saves_what_is_recorded(model_type, precision):
    model = build(model_type)
    recording = recorded({"model_type": model_type, **MODELS[model_type]}, precision)
    saved = saved_bytes(recording).at(ROWS * LENGTH)
    assert saved == pytest.approx(tally(model, precision), rel=0.01)
    gradients = sum(one.gradient_bytes for one in recording.operations)
    assert gradients == 4 * model.num_parameters()
