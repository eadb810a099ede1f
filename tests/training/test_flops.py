"""What a token costs, and what chips could do at most."""

import pytest
import torch

from kovar.training.flops import flops_per_token, peak_flops
from kovar.training.peak_memory import peak_memory_bytes, reset_peak_memory


def test_a_token_costs_six_operations_per_weight_that_it_meets():
    model = torch.nn.Sequential(torch.nn.Embedding(1000, 8), torch.nn.Linear(8, 4))
    assert flops_per_token(model) == 6 * 32


def test_a_frozen_weight_has_no_gradient_to_compute():
    frozen = torch.nn.Linear(8, 4).requires_grad_(False)
    assert flops_per_token(torch.nn.Sequential(frozen, torch.nn.Linear(4, 2))) == 4 * 32 + 6 * 8


def test_an_output_layer_that_shares_the_embeddings_weights_does_cost():
    table, head = torch.nn.Embedding(10, 8), torch.nn.Linear(8, 10, bias=False)
    head.weight = table.weight
    assert flops_per_token(torch.nn.Sequential(table, head)) == 6 * 80


def test_a_layer_that_computes_some_tokens_costs_its_share():
    head = torch.nn.Linear(8, 100)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), head)
    assert flops_per_token(model, output=head, output_share=0.15) == 6 * 64 + 720


@pytest.mark.parametrize(
    ("chip", "precision", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA L4", "bf16", 121),
        ("Tesla T4", "fp16", 65),
        ("Tesla T4", "bf16", None),
        ("Intel(R) Xeon(R) Processor", "fp32", None),
    ],
)
def test_the_peak_of_a_chip_is_the_published_one_or_unknown(chip, precision, tera):
    found = peak_flops(chip, precision)
    assert found == (None if tera is None else pytest.approx(tera * 1e12, rel=0.01))


def test_the_memory_of_a_process_holds_at_least_what_it_holds():
    held = torch.ones(50_000_000)
    assert peak_memory_bytes(torch.device("cpu")) > held.nbytes


def test_a_peak_that_is_reset_counts_from_what_is_held():
    device = torch.device("cpu")
    held = torch.ones(50_000_000)
    before = peak_memory_bytes(device)
    del held
    reset_peak_memory(device)
    assert peak_memory_bytes(device) < before - 100_000_000
