"""What is faster on CPUs computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kovar.models.dropout import _attended, dropped, quicken_dropout
from kovar.models.embedding import quicken_embeddings

IDS = torch.tensor([[5, 1, 5], [0, 7, 7]])
OTHERS = torch.tensor([[2, 5, 9], [9, 9, 0]])


class Scorer(nn.Module):
    """A table and a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 4, padding_idx=0)
        self.layer = nn.Linear(4, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layer(self.table(ids)).square().sum()


def gradients(model: nn.Module, steps: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    """Return the table's gradient after each step of micro-batches."""
    found = []
    for step in steps:
        model.zero_grad()
        for ids in step:
            model(ids).backward()
        found.append(model.table.weight.grad.clone())
    return found


@pytest.mark.parametrize("steps", [[[IDS], [OTHERS], [IDS]], [[IDS, OTHERS], [OTHERS, OTHERS]]])
def test_a_kept_gradient_has_the_bits_of_a_new_one(steps):
    plain, quick = Scorer(), Scorer()
    quicken_embeddings(quick)
    for expected, found in zip(gradients(plain, steps), gradients(quick, steps), strict=True):
        assert torch.equal(expected, found)


def test_a_gradient_that_was_scaled_in_place_leaves_nothing_behind():
    quick = Scorer()
    quicken_embeddings(quick)
    gradients(quick, [[IDS]])
    quick.table.weight.grad.mul_(3)
    assert torch.equal(gradients(quick, [[OTHERS]])[0], gradients(Scorer(), [[OTHERS]])[0])


def test_a_table_that_is_tied_to_a_head_stays_as_it_is():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    model[1].weight = model[0].weight
    quicken_embeddings(model)
    assert type(model[0]) is nn.Embedding


def test_frozen_tables_and_evaluation_take_the_plain_way():
    model = Scorer()
    model.table.requires_grad_(False)
    quicken_embeddings(model)
    assert type(model.table) is nn.Embedding
    other = Scorer()
    quicken_embeddings(other)
    assert torch.equal(other.eval()(IDS), Scorer().eval()(IDS))


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    found = dropped(torch.ones(1000, 1000), 0.1)
    assert (found == 0).float().mean().item() == pytest.approx(0.1, abs=2e-3)
    assert found.mean().item() == pytest.approx(1, abs=2e-3)


def test_dropout_passes_gradients_where_it_passed_values():
    values = torch.ones(101, 7, requires_grad=True)
    found = dropped(values, 0.5)
    found.sum().backward()
    assert torch.equal(values.grad, found.detach())


def test_dropout_follows_the_seed():
    model = nn.Sequential(nn.Dropout(0.3))
    quicken_dropout(model)
    values = torch.ones(64)
    draws = [model(values) for _ in range(2) if torch.manual_seed(1)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], model(values))
    assert torch.equal(model.eval()(values), values)


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention_equals_torch_s_own(mask):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64).unbind()
    seen = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    seen[1, :, :, 4:] = False
    given = {
        None: None,
        "bool": seen,
        "float": torch.zeros(2, 1, 6, 6, dtype=torch.float64).masked_fill(~seen, -1e30),
    }[mask]
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=given)
    # A probability below half a level drops nothing.
    found = _attended(query, key, value, given, 1e-9, None)
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-12)
