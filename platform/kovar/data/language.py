"""Rows of language models as arrays: which tokens are predicted from which.

Both kinds return `target_positions`, the places in the flattened batch whose outputs predict, and
the tokens that are right there, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

TARGET: Final = 1
"""A token that is learned; as a bit of its role."""
START: Final = 2
"""The first token of a document, which nothing predicts; as a bit of its role."""

MASKED_SHARE: Final = 0.15
"""Share of the tokens that a masked language model predicts: of them 80 % become the mask, 10 % a
random token, 10 % stay (Devlin et al., 2019, https://arxiv.org/abs/1810.04805, section 3.1)."""


@dataclass(frozen=True, slots=True)
class LanguageBatch:
    """Rows of one length.

    Args:
        inputs: arrays that the model takes, by name.
        targets: the right token of each place of `inputs["target_positions"]`, int64.
        rows: which of the given rows each target is of, int64.
    """

    inputs: dict[str, NDArray[Any]]
    targets: NDArray[np.int64]
    rows: NDArray[np.int64]


class Rows(Protocol):
    """What collating needs of a split."""

    @property
    def constants(self) -> Mapping[str, int]:
        """What all rows share."""

    def values(self, name: str, row: int) -> NDArray[Any]:
        """Return a stored list of one row."""


def pack(
    documents: Sequence[tuple[NDArray[np.int32], NDArray[np.uint8]]], length: int
) -> list[tuple[NDArray[np.int32], NDArray[np.uint8], int]]:
    """Put documents one after the other and cut them into windows of one length.

    A document that a cut divides goes on as a document of its own; no token is lost.

    Args:
        documents: tokens and their roles.
        length: tokens in a window; only the last may have fewer.

    Returns:
        Tokens and roles of each window, and the index of the document that it begins with.
    """
    if not documents:
        return []
    tokens = np.concatenate([ids for ids, _ in documents])
    roles = np.concatenate([role for _, role in documents])
    ends = np.cumsum([len(ids) for ids, _ in documents])
    windows = []
    for start in range(0, len(tokens), length):
        stop = start + length
        window = roles[start:stop].copy()
        window[0] |= START
        first = int(np.searchsorted(ends, start, side="right"))
        windows.append((tokens[start:stop], window, first))
    return windows


def collate_causal(
    split: Rows, rows: NDArray[np.int64], length: int, *, pad_id: int
) -> LanguageBatch:
    """Pad rows on the right and list what each token's predecessor is to predict.

    No attention mask is needed: nothing sees what comes after it. Where rows hold several
    documents, `position_ids` start again with each; attention in transformers then stays within
    each document.
    """
    ids, roles = _padded(split, rows, length, pad_id)
    learned = ((roles & TARGET) != 0) & ((roles & START) == 0)
    places = np.flatnonzero(learned[:, 1:])
    row, column = np.divmod(places, max(1, length - 1))
    inputs: dict[str, NDArray[Any]] = {
        "input_ids": ids,
        "target_positions": row * length + column,
    }
    starts = (roles & START) != 0
    if starts[:, 1:].any():
        inputs["position_ids"] = _positions(starts, split, rows)
    return LanguageBatch(inputs, ids[row, column + 1], row)


def _padded(
    split: Rows, rows: NDArray[np.int64], length: int, pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    roles = np.zeros((len(rows), length), dtype=np.uint8)
    for index, row in enumerate(rows.tolist()):
        tokens = split.values("input_ids", row)
        ids[index, : len(tokens)] = tokens
        roles[index, : len(tokens)] = split.values("roles", row)
    return ids, roles


def _positions(
    starts: NDArray[np.bool_], split: Rows, rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count from 0 in every document; padding is one more."""
    starts = starts.copy()
    for index, row in enumerate(rows.tolist()):
        end = len(split.values("input_ids", row))
        starts[index, end : end + 1] = True
    places = np.arange(starts.shape[1])
    begun: NDArray[np.int64] = np.maximum.accumulate(np.where(starts, places, 0), axis=1)
    return places - begun


def collate_masked(
    split: Rows,
    rows: NDArray[np.int64],
    length: int,
    *,
    pad_id: int,
    seed: int,
    numbers: Sequence[int] | None = None,
) -> LanguageBatch:
    """Pad rows on the right and hide some of their tokens.

    What is hidden is drawn from `seed` and the row's number alone, so that neither ranks nor
    micro-batches nor a restart change it. At least one token of a row is hidden, if it has any
    that is not special.

    Args:
        split: where the rows are.
        rows: row numbers within it.
        length: tokens to pad to.
        pad_id: the token that fills rows.
        seed: of the draws.
        numbers: what to draw with in place of the row numbers.
    """
    right = np.full((len(rows), length), pad_id, dtype=np.int64)
    shown, mask = right.copy(), np.zeros_like(right)
    hidden = np.zeros(right.shape, dtype=bool)
    for index, row in enumerate(rows.tolist()):
        tokens = split.values("input_ids", row)
        right[index, : len(tokens)] = tokens
        mask[index, : len(tokens)] = 1
        learned = (split.values("roles", row) & TARGET) != 0
        number = row if numbers is None else numbers[row]
        seen, chosen = _hide(tokens, learned, row=number, seed=seed, constants=split.constants)
        shown[index, : len(tokens)] = seen
        hidden[index, : len(tokens)] = chosen
    places = np.flatnonzero(hidden)
    inputs = {"input_ids": shown, "attention_mask": mask, "target_positions": places}
    return LanguageBatch(inputs, right[hidden], places // length)


def _hide(
    tokens: NDArray[np.int32],
    learned: NDArray[np.bool_],
    *,
    row: int,
    seed: int,
    constants: Mapping[str, int],
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return what is seen of one row, and which tokens are to be predicted."""
    count = len(tokens)
    # Raw bits of Philox are the same in every version of numpy; each row has a stream of its own.
    draws = np.random.Philox(key=seed, counter=[0, 0, 0, row]).random_raw(3 * count)
    choice, kind, other = draws[:count], draws[count : 2 * count], draws[2 * count :]
    chosen = learned & (choice < _share(MASKED_SHARE))
    if learned.any() and not chosen.any():
        chosen[np.where(learned, choice, np.iinfo(np.uint64).max).argmin()] = True
    seen = tokens.copy()
    seen[chosen & (kind < _share(0.8))] = constants["mask_id"]
    random = chosen & (kind >= _share(0.8)) & (kind < _share(0.9))
    seen[random] = (other[random] % np.uint64(constants["vocabulary"])).astype(tokens.dtype)
    return seen, chosen


def _share(share: float) -> np.uint64:
    """Return the bound below which 64 random bits fall with this probability."""
    return np.uint64(int(share * (1 << 63)) << 1)
