"""What a forward pass keeps: held against what autograd really saves."""

import contextlib

import pytest
import torch
import transformers

from kovar.models import quicken_dropout
from kovar.models.attention import attend
from kovar.models.forward import Arithmetic, Recording
from kovar.models.heap import Churn, Heap
from kovar.models.liveness import inference_moments, saved_bytes, training_moments
from kovar.models.recorder import record
from kovar.models.size import Linear, LoraShape, model_size
from small_configs import ENCODERS, SMALL

ROWS, LENGTH, LABELS = 4, 32, 3


def tally(model, autocast):
    """Return the bytes of storages that autograd saves, weights and buffers aside."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)  # alive: addresses stay taken
        return tensor

    ids = torch.full((ROWS, LENGTH), 7)
    mask = torch.ones_like(ids)
    mask[0, LENGTH // 2 :] = 0
    chosen = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), chosen:
        logits = model(input_ids=ids, attention_mask=mask).logits
    assert logits.requires_grad
    return sum(size for size, _ in seen.values())


def recorded(config, precision, lora=None, device="cpu", training=True):
    size = model_size(config, num_labels=LABELS)
    arithmetic = Arithmetic.training(precision)
    return record(
        config,
        size,
        length=LENGTH,
        arithmetic=arithmetic,
        device=device,
        training=training,
        lora=lora,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model_type", sorted(ENCODERS))
def test_autograd_saves_what_is_recorded(model_type, precision):
    config = transformers.AutoConfig.for_model(
        model_type, num_labels=LABELS, **ENCODERS[model_type]
    )
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_config(config, attn_implementation="sdpa").train()
    quicken_dropout(model)
    recording = recorded({"model_type": model_type, **ENCODERS[model_type]}, precision)
    saved = saved_bytes(recording).at(ROWS * LENGTH)
    assert saved == pytest.approx(tally(model, precision == "bf16"), rel=0.01)
    gradients = sum(one.gradient_bytes for one in recording.operations)
    assert gradients == 4 * model.num_parameters()


class Adapted(torch.nn.Module):
    """A frozen matrix with LoRA's two factors beside it."""

    def __init__(self, frozen, rank):
        super().__init__()
        self.frozen = frozen
        self.first = torch.nn.Linear(frozen.in_features, rank, bias=False)
        self.second = torch.nn.Linear(rank, frozen.out_features, bias=False)

    def forward(self, x):
        return self.frozen(x) + self.second(self.first(x)) * 2.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lora_saves_what_is_recorded(precision):
    config = transformers.BertConfig(num_labels=LABELS, **SMALL)
    model = transformers.BertForSequenceClassification._from_config(
        config, attn_implementation="sdpa"
    )
    model.bert.requires_grad_(False)
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        attention.query = Adapted(attention.query, 4)
        attention.value = Adapted(attention.value, 4)
    quicken_dropout(model)
    lora = LoraShape(4)
    recording = recorded({"model_type": "bert", **SMALL}, precision, lora)
    saved = saved_bytes(recording).at(ROWS * LENGTH)
    assert saved == pytest.approx(tally(model.train(), precision == "bf16"), rel=0.01)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == model_size({"model_type": "bert", **SMALL}).trainable(lora) + LABELS * 65


def test_a_matrix_keeps_its_input_and_its_gradient_needs_its_size():
    recording = Recording(8, Arithmetic(4, 4), "cpu", training=True)
    x = recording.tokens(10, 4)
    recording.linear(x, Linear("one", 10, 6), trained=True)
    assert saved_bytes(recording).at(8) == 10 * 4 * 8
    ends = training_moments(recording)
    # In the backward step: input and its gradient, the output's gradient, the weight's.
    assert max(one.at(8) for one in ends) == 8 * 4 * (10 + 10 + 6) + 4 * (10 * 6 + 6)


def test_autocast_keeps_copies_of_input_and_weight():
    recording = Recording(8, Arithmetic(4, 2), "cpu", training=True)
    recording.linear(recording.tokens(10, 4), Linear("one", 10, 6), trained=True)
    assert saved_bytes(recording).at(8) == 10 * 2 * 8 + 66 * 2


def test_a_frozen_matrix_keeps_nothing_in_fp32():
    recording = Recording(8, Arithmetic(4, 4), "cpu", training=True, lora=LoraShape(2))
    recording.linear(recording.tokens(10, 4), Linear("one", 10, 6), trained=False)
    assert saved_bytes(recording).at(8) == 0


@pytest.mark.parametrize(("device", "num_bytes"), [("cpu", 1), ("xla", 4), ("cuda", 1)])
def test_dropout_keeps_a_mask_of_bytes_but_on_tpus(device, num_bytes):
    recording = Recording(8, Arithmetic(4, 4), device, training=True)
    recording.dropout(recording.tokens(10, 4), 0.1)
    assert saved_bytes(recording).at(8) == 8 * 10 * num_bytes


@pytest.mark.parametrize(
    ("device", "num_bytes"),
    [
        # Three copies of 10 features, and of 2 heads × 8 keys: softmax, mask and their product.
        ("xla", 4 * (3 * 10 + 3 * 2 * 8)),
        # The same with a mask of bytes.
        ("cpu", 4 * (3 * 10 + 2 * 2 * 8) + 2 * 8),
        # Query, key, value, output; the sums of 2 heads, and a bias for 8 keys.
        ("cuda", 4 * (4 * 10 + 2 + 8)),
    ],
)
def test_only_a_gpu_attends_with_dropout_without_keeping_the_products(device, num_bytes):
    recording = Recording(8, Arithmetic(4, 4), device, training=True)
    query, key, value = (recording.tokens(10, 4) for _ in range(3))
    attend(recording, query, key, value, num_heads=2, dropout=0.1)
    assert saved_bytes(recording).at(8) == 8 * num_bytes


def test_inference_needs_less_than_training_and_no_more_with_more_layers():
    def peak(num_layers):
        config = {"model_type": "bert", **SMALL, "num_hidden_layers": num_layers}
        scoring = recorded(config, "fp32", training=False)
        return max(one.at(1024) for one in inference_moments(scoring))

    config = {"model_type": "bert", **SMALL}
    assert peak(8) == peak(2)
    assert peak(2) < max(one.at(1024) for one in training_moments(recorded(config, "fp32"))) / 4


def test_an_activation_that_is_not_known_is_not_guessed():
    assert recorded({"model_type": "bert", **SMALL, "hidden_act": "mish"}, "fp32") is None


def test_a_hole_takes_no_tensor_of_its_own_size_but_a_smaller_one():
    heap = Heap()
    heap.allocate(1000)
    heap.free(1000)
    heap.allocate(1000)
    assert (heap.size, heap.holes_bytes) == (2000, 1000)
    heap.allocate(500)
    assert (heap.size, heap.holes_bytes) == (2000, 500)


def test_tensors_that_are_mapped_by_themselves_leave_no_holes():
    churn = Churn(recorded({"model_type": "bert", **SMALL}, "fp32"))
    few, many = 1024, 1 << 24
    assert churn.holes_bytes(many) / many < 0.01 * churn.holes_bytes(few) / few
